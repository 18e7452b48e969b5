"""Where the images are, as options say it: --root and --target-images."""

import os
from collections.abc import Sequence
from pathlib import Path

from scale_ray.config import Catalogue, ConfigError, Place, Root, is_hub, is_list, read_catalogue
from scale_ray.config.catalogue import absolute
from scale_ray.errors import shown
from scale_ray.urls import as_url, is_url, redacted


def read_root(root: str | Path | None, target_images: Sequence[str | Path]) -> Root | None:
    """The root folder; a catalogue where the root is none, or where there are targets without labels beside it.

    Args:
        root: a folder of domains, a URL of one (s3://bucket/photos), a catalogue (.toml), a list file with the column
            `domain`, or a data set of Hugging Face whose splits are the domains (hf:NAME).
        target_images: folders of images without labels, or URLs of them. Each is a domain with the folder's name; one
            that is a domain of the root has no labels then.

    Raises:
        ConfigError: there is no labelled domain, a file is none of these, or two domains have one name.
        DataError: the list file, the URL or the data set cannot be read.
    """
    if root is None:
        if target_images:
            raise ConfigError("--target-images has no labels to learn from: name the labelled images too, with --root")
        return None
    place = written(root)
    known = _catalogue(place)
    if not target_images:
        return known or Path(place)
    if known is None:
        from scale_ray.data.image_folder import domain_folders

        folders = domain_folders("image_folder", Path(place))
        known = Catalogue(domains={name: Place(images=str(folder)) for name, folder in folders.items()})
    places = dict(known.domains)
    for each in map(written, target_images):
        name = each.rpartition("/")[2]
        if not is_url(each) and not Path(each).is_dir():
            raise ConfigError(f"--target-images {shown(each)}: no such folder: name a folder of images")
        if name in places and not _is_of(places[name], each):
            raise ConfigError(
                f"--target-images {shown(redacted(each))}: there is a domain {name!r} already: rename this folder"
            )
        places[name] = Place(images=each, labelled=False)
    return Catalogue(domains=places, label_map=known.label_map)


def written(place: str | Path) -> str:
    """A place as it is the same from every folder: a URL or a data set as it is, else an absolute path."""
    text = str(place)
    if (url := as_url(text)) is not None and url[0] != "file":
        return f"{url[0]}://{url[1]}".rstrip("/")
    here = absolute(text if url is None else f"/{url[1]}", Path.cwd())
    return here if is_hub(here) else os.path.realpath(here)


def _is_of(place: Place, folder: str) -> bool:
    """Whether a labelled domain is this very folder, as every folder below a root seems to be a labelled domain."""
    return place.labelled and list(map(written, place.images)) == [folder]


def _catalogue(place: str) -> Catalogue | None:
    """The catalogue that a place is; None of a folder, and of a file that `domain_folders` refuses."""
    if is_hub(place):
        from scale_ray.data.hub import splits

        return Catalogue(domains={name: Place(images=f"{place}:{name}") for name in splits(place)})
    if is_list(place) and not place.lower().endswith(".txt") and (is_url(place) or Path(place).is_file()):
        from scale_ray.data.lists import list_domains

        return Catalogue(domains={name: Place(images=place, domain=name) for name in list_domains(place)})
    if is_url(place):
        from scale_ray.data.remote_folders import remote_domains

        return Catalogue(domains={name: Place(images=f"{place}/{name}") for name in remote_domains(place)})
    return read_catalogue(Path(place)) if place.lower().endswith(".toml") and Path(place).is_file() else None
