"""What an installation can lack, and the command that installs it."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from scale_ray.errors import UserError

WHOLE, LIGHT = "scale-ray", "scale-ray-report"

# Modules of what the whole distribution depends on and the light one does not.
LEFT_OUT = frozenset({"torch", "torchvision", "kornia", "ray", "grpc", "cmaes", "safetensors"})


@contextmanager
def left_out_as_a_message() -> Iterator[None]:
    """Say in one line what a command needs that the light distribution leaves out.

    Raises:
        UserError: instead of the ModuleNotFoundError of such a module.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in LEFT_OUT:  # `torch._C` is a broken torch, and not a missing one
            raise
        raise UserError(f"this needs {error.name}, which is not installed: {how_to_install()}") from error


def how_to_install(extra: str | None = None) -> str:
    """The command that installs an extra, from the checkout, wheel or index that the package itself came from.

    Where that was is in `direct_url.json` (https://packaging.python.org/specifications/direct-url).

    Args:
        extra: None is the whole distribution without extras. An extra that the light one lacks needs the whole one too.
    """
    installed, extras, origin = _installed()
    wanted = LIGHT if installed == LIGHT and extra in extras else WHOLE
    brackets = "" if extra is None else f"[{extra}]"
    if not origin:
        return f"pip install {shlex.quote(wanted + brackets)}"
    place = _place(origin) if wanted == installed else _place_of_the_whole(origin)
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install -e {shlex.quote(url2pathname(urlparse(place).path) + brackets)}"
    return f"pip install {shlex.quote(f'{wanted}{brackets} @ {place}')}"


def _installed() -> tuple[str, list[str], dict[str, Any]]:
    """The distribution that is installed, its extras, and where it came from. Where both are, the whole one counts."""
    for name in (WHOLE, LIGHT):
        with suppress(PackageNotFoundError):
            found = distribution(name)
            origin = json.loads(found.read_text("direct_url.json") or "{}")
            return name, found.metadata.get_all("Provides-Extra") or [], origin
    return WHOLE, [], {}


def _place(origin: dict[str, Any]) -> str:
    """A URL as pip takes it."""
    if "vcs_info" not in origin:
        return str(origin["url"])
    folder = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
    return f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}{folder}"


def _place_of_the_whole(origin: dict[str, Any]) -> str:
    """Where the whole distribution is: the light one is a folder of its checkout, and the two wheels lie together."""
    if "vcs_info" in origin:
        return _place({key: value for key, value in origin.items() if key != "subdirectory"})
    folder, _, last = str(origin["url"]).rstrip("/").rpartition("/")
    return folder if "dir_info" in origin else f"{folder}/{last.replace('scale_ray_report', 'scale_ray', 1)}"
