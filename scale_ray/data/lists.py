"""List files: images and their labels, as a table (.csv, .parquet) or as lines `path label` (.txt)."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd

from scale_ray.config import Catalogue, ConfigError, Place, suggest
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import digests_path, file_digests, forget_digests, noted_digests, read_bytes
from scale_ray.data.domain_files import DomainFiles
from scale_ray.data.names import quoted
from scale_ray.errors import shown
from scale_ray.urls import redacted

COLUMNS = ("path", "label", "domain", "split")


def list_files(name: str, place: Place, catalogue: Catalogue) -> DomainFiles:
    """The images of a domain that a list file names.

    Paths are relative to the list file, absolute, or URLs such as s3://bucket/image.jpg. Images are ordered by class
    and then by path, whatever the order of the rows.

    Raises:
        ConfigError: the list has no row of the domain or the split that the catalogue names.
        DataError: it cannot be read, a column lacks, a path is there twice, or only some of the rows have a label.
    """
    location = place.images[0]
    rows = _chosen(read_list(location), place, location)
    labelled = place.labelled and bool((rows["label"] != "").any())
    if labelled and (lacking := int((rows["label"] == "").sum())):
        raise DataError(
            f"{_shown(location)}: {lacking:,} of {len(rows):,} rows of {shown(name)!r} have no label: give every row "
            "one, or write `labelled = false` in the catalogue"
        )
    if repeated := [path for path, times in Counter(rows["path"]).items() if times > 1]:
        raise DataError(f"{_shown(location)}: {shown(repeated[0])!r} is there twice: keep one of these rows")
    names = [catalogue.class_name(label) for label in rows["label"]] if labelled else [""] * len(rows)
    order = sorted(zip(names, rows["path"], strict=True))
    classes = tuple(sorted(set(names))) if labelled else ()
    paths = tuple(path for _, path in order)
    where = _folder(location)
    local = {path: _place(path, where) for path in paths}
    remote = [path for path in paths if "://" in local[path]]
    of = f"{location} {place.domain} {place.split}"

    def digests() -> list[str]:
        if remote:
            return _remote_digests(paths, local, of)
        return file_digests(Path(where), [os.path.relpath(local[path], where) for path in paths], of=of)

    def forget() -> None:
        if remote:
            digests_path(of.encode()).unlink(missing_ok=True)
        else:
            forget_digests(Path(where), of=of)

    return DomainFiles(
        name,
        where,
        paths,
        tuple(classes.index(label) for label, _ in order) if labelled else None,
        classes,
        read=lambda path: _read(local[path]),
        digests=digests,
        forget=forget,
    )


def read_list(location: str) -> pd.DataFrame:
    """The rows of a list file as text: columns path, label, domain, split; empty where the list has none.

    Raises:
        DataError: it cannot be read, or has no column `path`.
    """
    suffix = location.lower().rpartition(".")[2]
    try:
        with fsspec.open(location, "rb") as file:
            rows = _tables[suffix](file)
    except FileNotFoundError:
        raise ConfigError(f"{_shown(location)}: no such file: name a list of images") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{_shown(location)}: cannot be read as .{suffix} ({_reason(error)}): check it") from None
    rows.columns = [str(column).strip().lower() for column in rows.columns]
    if "path" not in rows:
        hint = suggest("path", rows.columns)
        raise DataError(
            f"{_shown(location)}: no column 'path': {hint}a list has the columns {', '.join(COLUMNS)} (all but path "
            f"may lack), and this one has: {quoted(rows.columns)}"
        )
    found = pd.DataFrame({column: rows.get(column, "") for column in COLUMNS})
    found = found.fillna("").astype(str)
    if empty := int((found["path"] == "").sum()):
        raise DataError(f"{_shown(location)}: {empty:,} rows have no path: remove them")
    return found


def list_domains(location: str) -> list[str]:
    """The names in the column `domain` of a list file, in ASCII order.

    Raises:
        DataError: it cannot be read, or has no such column.
    """
    names = sorted(set(read_list(location)["domain"]) - {""})
    if not names:
        raise DataError(
            f"{_shown(location)}: no column 'domain': --root needs one; for a list of one domain, name the list as its "
            "`images` in a catalogue"
        )
    return names


def _csv(file: Any) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _parquet(file: Any) -> pd.DataFrame:
    return pd.read_parquet(file)


def _lines(file: Any) -> pd.DataFrame:
    """Lines `path label`, as Transfer-Learning-Library and SHOT have them; blanks in a path are part of it."""
    lines = [line.strip() for line in file.read().decode().splitlines() if line.strip()]
    parts = [line.rsplit(maxsplit=1) for line in lines]
    if not all(len(part) == 2 for part in parts):
        wrong = next(number for number, part in enumerate(parts, 1) if len(part) != 2)
        raise ValueError(f"line {wrong} is not `path label`")
    return pd.DataFrame(parts, columns=["path", "label"])


_tables = {"csv": _csv, "parquet": _parquet, "txt": _lines}


def _chosen(rows: pd.DataFrame, place: Place, location: str) -> pd.DataFrame:
    for column in ("domain", "split"):
        wanted = getattr(place, column)
        if wanted is None:
            continue
        known = sorted(set(rows[column]) - {""})
        rows = rows[rows[column] == wanted]
        if rows.empty:
            raise ConfigError(
                f"{_shown(location)}: no row with {column} {wanted!r}: {suggest(wanted, known)}it has: "
                f"{quoted(known) or 'none'}"
            )
    if rows.empty:
        raise DataError(f"{_shown(location)}: no image in it: add rows")
    return rows


def _folder(location: str) -> str:
    return location.rpartition("/")[0] if "://" in location else str(Path(location).absolute().parent)


def _place(path: str, where: str) -> str:
    """Where an image lies: an absolute path or a URL."""
    if "://" in path:
        return path
    return f"{where}/{path}" if "://" in where else str(Path(where) / Path(path).expanduser())


def _read(place: str) -> bytes:
    if "://" not in place:
        return read_bytes(Path(place))
    try:
        with fsspec.open(place, "rb") as file:
            return bytes(file.read())
    except (OSError, ValueError, ImportError) as error:
        raise _unreachable(place, error) from None


def _remote_digests(paths: Sequence[str], places: dict[str, str], of: str) -> list[str]:
    """Digests of images behind URLs. Where size and version (ETag, generation, time) are noted, none is read again."""

    def states(wanted: Sequence[str]) -> dict[str, list]:
        return {path: _state(places[path]) for path in wanted}

    return noted_digests(
        digests_path(of.encode()), paths, states, lambda path: _read(places[path]), _shown(of.split()[0])
    )


def _state(place: str) -> list:
    try:
        about = fsspec.filesystem(place.partition("://")[0]).info(place)
    except (OSError, ValueError, ImportError) as error:
        raise _unreachable(place, error) from None
    known = ("ETag", "etag", "generation", "LastModified", "mtime")
    version = next((about[key] for key in known if key in about), None)
    return [about.get("size"), str(version)]


def _unreachable(place: str, error: Exception) -> DataError:
    return DataError(f"{_shown(place)}: cannot be read ({_reason(error)}): check the list, the path and your access")


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return getattr(error, "strerror", None) or first or type(error).__name__


def _shown(location: str) -> str:
    return shown(redacted(location))
