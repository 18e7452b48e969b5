"""Data sets of Hugging Face as domains (extra `hub`): `hf:NAME`, `hf:NAME:SPLIT`, or `hf:FOLDER` of save_to_disk."""

from functools import cache
from pathlib import Path
from typing import Any

from scale_ray.config import Catalogue, Place
from scale_ray.config.catalogue import HUB
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import digests_path, forget_noted, noted_digests
from scale_ray.data.domain_files import DomainFiles
from scale_ray.data.names import quoted
from scale_ray.errors import shown
from scale_ray.extras import how_to_install


def hub_files(name: str, place: Place, catalogue: Catalogue) -> DomainFiles:
    """The images of a data set with one image column and, if the place is labelled, one ClassLabel column.

    The order is by class and then by row. An image is named by its row: `00000012`.

    Raises:
        DataError: the package lacks, the data set cannot be opened, or its columns are not these.
    """
    where = place.images[0]
    rows = _opened(where)
    image, label = _columns(rows, where, labelled=place.labelled)
    written = [] if label is None else rows.features[label].names
    named = [catalogue.class_name(each) for each in written]
    of_rows = [] if label is None else list(rows[label])
    if unknown := sum(each is None or each < 0 for each in of_rows):
        raise DataError(f"{shown(where)}: {unknown:,} of {len(rows):,} rows have no label: remove them")
    classes = tuple(sorted(set(named)))
    labels = None if label is None else [classes.index(named[each]) for each in of_rows]
    order = sorted(range(len(rows)), key=lambda row: (0 if labels is None else labels[row], row))
    places = {f"{row:08}": row for row in order}

    def read(wanted: str) -> bytes:
        found = rows[places[wanted]][image]
        if found is None:
            raise DataError(f"{shown(where)}: row {places[wanted]:,} has no image: remove it")
        return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()

    def digests() -> list[str]:
        # The fingerprint of a data set changes with its content: nothing is read again where it is the same.
        states = {wanted: [rows._fingerprint] for wanted in places}
        return noted_digests(digests_path(where.encode()), tuple(places), lambda _: states, read, shown(name))

    return DomainFiles(
        name,
        where,
        tuple(places),
        None if labels is None else tuple(labels[row] for row in order),
        () if labels is None else classes,
        read=read,
        digests=digests,
        forget=lambda: forget_noted(digests_path(where.encode())),
    )


def splits(where: str) -> list[str]:
    """Names of the splits of a data set (`hf:NAME`, `hf:FOLDER`), which as a root are its domains.

    Raises:
        DataError: as `hub_files`; or there is one only.
    """
    datasets = _package(where)
    name = where.removeprefix(HUB)
    try:
        if Path(name).is_dir():
            found = datasets.load_from_disk(name)
            names = list(found) if isinstance(found, dict) else []
        else:
            names = datasets.get_dataset_split_names(name)
    except Exception as error:  # noqa: BLE001 - of many packages: network, hub, Parquet
        raise _not_opened(where, error) from None
    if len(names) < 2:
        raise DataError(
            f"--root {shown(where)}: its domains would be its splits, and it has {quoted(names) or 'none'}: name the "
            "data set of each domain in a catalogue"
        )
    return names


@cache
def _opened(where: str) -> Any:
    """The rows of a data set, images as bytes."""
    datasets = _package(where)
    name, _, split = where.removeprefix(HUB).partition(":")
    folder = Path(name)
    try:
        found = datasets.load_from_disk(name) if folder.is_dir() else datasets.load_dataset(name, split=split or None)
    except Exception as error:  # noqa: BLE001 - of many packages: network, hub, Parquet
        raise _not_opened(where, error) from None
    if isinstance(found, dict):
        if len(found) > 1 and split not in found:
            raise DataError(
                f"{shown(where)}: has the splits {quoted(found)}: name one, as in {where}:{next(iter(found))}"
            )
        found = found[split] if split else next(iter(found.values()))
    images = [column for column, feature in found.features.items() if isinstance(feature, datasets.Image)]
    for column in images:
        found = found.cast_column(column, datasets.Image(decode=False))
    return found


def _package(where: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{shown(where)}: needs the package datasets: {how_to_install('hub')}") from None
    return datasets


def _not_opened(where: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = (
        "it is not a folder of save_to_disk"
        if Path(where.removeprefix(HUB).partition(":")[0]).is_dir()
        else "check the name and the network; without one, save it with save_to_disk elsewhere and name that folder"
    )
    return DataError(f"{shown(where)}: cannot be opened ({reason}): {remedy}")


def _columns(rows: Any, where: str, *, labelled: bool) -> tuple[str, str | None]:
    """Names of the image column and of the label column."""
    import datasets

    images = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    labels = [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(images) != 1:
        raise DataError(
            f"{shown(where)}: needs one image column, and has {quoted(images) or 'none'}: select the columns"
        )
    if not labelled:
        return images[0], None
    if len(labels) != 1:
        raise DataError(
            f"{shown(where)}: needs one ClassLabel column, and has {quoted(labels) or 'none'}: select the columns, or "
            "write `labelled = false` in the catalogue"
        )
    return images[0], labels[0]
