"""List files: images and their labels, as a table (.csv, .parquet) or as lines `path label` (.txt)."""

import csv
import io
import os
from collections import Counter
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException

from scale_ray.config import Catalogue, ConfigError, Place, suggest
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import digests_path, file_state, forget_noted, let_times_differ, noted_digests
from scale_ray.data.domain_files import DomainFiles
from scale_ray.data.locations import read_file, unreachable, versions
from scale_ray.data.names import quoted
from scale_ray.errors import shown
from scale_ray.urls import is_url, redacted

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
    labels = {each: label for label, each in enumerate(classes)}
    paths = tuple(path for _, path in order)
    where = _folder(location)
    places = {path: _place(path, where) for path in paths}
    noted = digests_path(os.fsencode(f"{where}\n{location} {place.domain} {place.split}"))
    return DomainFiles(
        name,
        where,
        paths,
        tuple(labels[label] for label, _ in order) if labelled else None,
        classes,
        read=lambda path: _read(places[path]),
        digests=lambda: noted_digests(
            noted,
            paths,
            lambda wanted: _states({path: places[path] for path in wanted}, shown(name)),
            lambda path: _read(places[path]),
            shown(name),
            let_times_differ,
        ),
        forget=lambda: forget_noted(noted),
        anywhere=all(map(is_url, places.values())),
    )


def read_list(location: str) -> pd.DataFrame:
    """The rows of a list file as text: columns path, label, domain, split; empty where the list has none.

    Raises:
        ConfigError: there is no such file.
        DataError: it cannot be read, has no column `path`, or two columns of one name.
    """
    suffix = location.lower().rpartition(".")[2]
    try:
        rows = _tables[suffix](read_file(location))
    except FileNotFoundError:
        raise ConfigError(f"{_shown(location)}: no such file: name a list of images") from None
    except OSError as error:
        raise unreachable(location, error) from None
    except (ValueError, ImportError, csv.Error, ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{_shown(location)}: cannot be read as .{suffix} ({reason}): check it") from None
    written = list(rows.columns)
    rows.columns = [str(column).strip().lower() for column in written]
    for column in COLUMNS:
        if len(same := [each for each, name in zip(written, rows.columns, strict=True) if name == column]) > 1:
            raise DataError(f"{_shown(location)}: several columns {column!r} ({quoted(same)}): keep one of them")
    if "path" not in rows:
        hint = suggest("path", rows.columns)
        raise DataError(
            f"{_shown(location)}: no column 'path': {hint}a list has the columns {', '.join(COLUMNS)} (all but path "
            f"may lack), and this one has: {quoted(rows.columns)}"
        )
    found = pd.DataFrame({column: _text(rows[column]) if column in rows else "" for column in COLUMNS})
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


def _csv(content: bytes) -> pd.DataFrame:
    lines = csv.reader(io.StringIO(_decoded(content), newline=""), strict=True)
    header = next(lines, [])
    rows = []
    for line in lines:
        if any(line[len(header) :]):
            raise ValueError(f"line {lines.line_num} has more values than there are columns")
        if line:
            rows.append((line + [""] * len(header))[: len(header)])
    return pd.DataFrame(rows, columns=header, dtype=str)


def _parquet(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content), dtype_backend="numpy_nullable")


def _lines(content: bytes) -> pd.DataFrame:
    """Lines `path label`, as Transfer-Learning-Library and SHOT have them; blanks in a path are part of it."""
    parts = []
    for number, line in enumerate(_decoded(content).split("\n"), 1):
        part = line.strip().rsplit(maxsplit=1)
        if len(part) == 1:
            raise ValueError(f"line {number} is not `path label`")
        parts += [part] if part else []
    return pd.DataFrame(parts, columns=["path", "label"], dtype=str)


def _decoded(content: bytes) -> str:
    return content.decode("utf-8-sig")  # some programs begin a file with a byte-order mark


_tables = {"csv": _csv, "parquet": _parquet, "txt": _lines}


def _text(column: pd.Series) -> pd.Series:
    """Values as text, empty where there is none. Whole numbers, which lie as 3.0 beside missing ones, are `3`."""
    if pd.api.types.is_float_dtype(column) and not (column.dropna() % 1).any():
        column = column.astype("Int64")
    return column.astype("string").fillna("").astype(str)


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
    return location.rpartition("/")[0] if is_url(location) else str(Path(location).absolute().parent)


def _place(path: str, where: str) -> str:
    """Where an image lies: an absolute path or a URL."""
    if is_url(path):
        return path
    return f"{where}/{path}" if is_url(where) else os.path.join(where, path)


def _read(place: str) -> bytes:
    try:
        return read_file(place)
    except OSError as error:
        raise unreachable(place, error) from None


def _states(places: dict[str, str], what: str) -> dict[str, list]:
    """The state of each image, which changes with its content: of files and of URLs."""
    remote = [path for path, place in places.items() if is_url(place)]
    found: dict[str, list] = {path: file_state(place) for path, place in places.items() if not is_url(place)}
    return found | dict(zip(remote, versions([places[path] for path in remote], what), strict=True))


def _shown(location: str) -> str:
    return shown(redacted(location))
