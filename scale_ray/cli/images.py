"""Where the images are, as options say it: --root and --target-images."""

from collections.abc import Sequence
from pathlib import Path

from scale_ray.config import Catalogue, ConfigError, Place, Root, is_list, read_catalogue
from scale_ray.errors import shown


def read_root(root: Path | None, target_images: Sequence[Path]) -> Root | None:
    """The root folder; a catalogue where the root is a file, or where there are targets without labels beside it.

    Args:
        root: a folder of domains, a catalogue (.toml), or a list file with the column `domain`.
        target_images: folders of images without labels. Each is a domain with the folder's name; one that is a
            domain of the root has no labels then.

    Raises:
        ConfigError: there is no labelled domain, a file is none of these, or two domains have one name.
        DataError: the list file cannot be read.
    """
    known = None if root is None or root.is_dir() or not root.exists() else _catalogue(root)
    if not target_images:
        return known or root
    if root is None:
        raise ConfigError("--target-images has no labels to learn from: name the labelled images too, with --root")
    if known is None:
        from scale_ray.data.image_folder import domain_folders

        folders = domain_folders("image_folder", root)
        known = Catalogue(domains={name: Place(images=str(folder)) for name, folder in folders.items()})
    places = dict(known.domains)
    for folder in target_images:
        if not folder.is_dir():
            raise ConfigError(f"--target-images {shown(folder)}: no such folder: name a folder of images")
        if folder.name in places and not _is_of(places[folder.name], folder):
            raise ConfigError(
                f"--target-images {shown(folder)}: there is a domain {folder.name!r} already: rename this folder"
            )
        places[folder.name] = Place(images=str(folder), labelled=False)
    return Catalogue(domains=places, label_map=known.label_map)


def _is_of(place: Place, folder: Path) -> bool:
    """Whether a labelled domain is this very folder, as every folder below a root seems to be a labelled domain."""
    return place.labelled and [Path(each).resolve() for each in place.images] == [folder.resolve()]


def usual_pairs(root: Root | None) -> list[tuple[str, str]]:
    """Every labelled domain of a catalogue to every one without labels; of a folder of domains there are none."""
    if not isinstance(root, Catalogue):
        return []
    places = dict(root.domains)
    targets = [name for name, place in places.items() if not place.labelled]
    return [(source, target) for source in places if places[source].labelled for target in targets]


def _catalogue(file: Path) -> Catalogue | None:
    if file.suffix.lower() == ".toml":
        return read_catalogue(file)
    if not is_list(str(file)) or file.suffix.lower() == ".txt":
        return None  # which `domain_folders` refuses
    from scale_ray.data.lists import list_domains

    location = str(file.absolute())
    return Catalogue(domains={name: Place(images=location, domain=name) for name in list_domains(location)})
