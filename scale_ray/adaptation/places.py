"""Where the labelled and the unlabelled images are, as one catalogue."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from scale_ray.config import Catalogue, ConfigError, Place, is_hub, is_list
from scale_ray.config.catalogue import HUB, absolute
from scale_ray.data.names import is_text
from scale_ray.errors import shown
from scale_ray.urls import is_url


def places(source: str, targets: Sequence[str], label_map: dict[str, str] | None = None) -> Catalogue:
    """The catalogue of a source with labels and targets without; each domain is named after its folder or file.

    Args:
        source: a folder of class folders, a list file, or `hf:NAME`.
        targets: folders of images at any depth, list files, or `hf:NAME`; labels that they have are not read.
        label_map: class names that are replaced.

    Raises:
        ConfigError: a folder or file does not exist, a name is not UTF-8, or two domains have one name.
    """
    if not targets:
        raise ConfigError("no target: name the folder of the images without labels")
    found: dict[str, Place] = {}
    for given, labelled in [(source, True), *((target, False) for target in targets)]:
        where = _existing(given)
        name = _name(where)
        if not is_text(where):
            raise ConfigError(f"{shown(given)}: its name or a folder's above it is not UTF-8: rename it")
        if not name:
            raise ConfigError(f"{shown(given)}: a domain has its folder's name, and this has none: name a folder in it")
        if name in found:
            raise ConfigError(f"{shown(given)}: two domains would be called {name!r}: rename a folder")
        found[name] = Place(images=where, labelled=labelled)
    if wrong := [each for pair in (label_map or {}).items() for each in pair if not is_text(each)]:
        raise ConfigError(f"--label-map {shown(wrong[0])}: a class name that is not UTF-8: write it in UTF-8")
    return Catalogue(domains=found, label_map=label_map or {})


def to_toml(catalogue: Catalogue) -> str:
    """The catalogue as `read_catalogue` reads it, so that other commands can use it: --root domains.toml."""
    lines = []
    for name, place in catalogue.domains:
        lines += [f"[domains.{_quoted(name)}]", f"images = {_quoted(place.images[0])}"]
        lines += [] if place.labelled else ["labelled = false"]
        lines.append("")
    if catalogue.label_map:
        lines += ["[label_map]", *(f"{_quoted(old)} = {_quoted(new)}" for old, new in catalogue.label_map), ""]
    return "\n".join(lines)


def _existing(given: str) -> str:
    if is_hub(given) or is_url(given):
        return absolute(given, Path.cwd())
    path = Path(given).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"{shown(given)}: no such folder or file: name the images")
    if path.is_file() and not is_list(str(path)):
        raise ConfigError(f"{shown(given)}: neither a folder nor a list (.csv, .parquet, .txt): name one of these")
    return str(path)


def _name(where: str) -> str:
    place = where.removeprefix(HUB).partition(":")[0] if is_hub(where) else where
    name = os.path.basename(os.path.normpath(place))
    return Path(name).stem if is_list(where) else name


def _quoted(text: str) -> str:
    """A basic string of TOML. Its escapes are those of JSON, which leaves U+007F as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
