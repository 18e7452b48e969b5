"""Predictions as rows and as a file: CSV, Parquet or JSON lines, by its suffix."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scale_ray.config import ConfigError
from scale_ray.errors import shown

if TYPE_CHECKING:
    import pandas as pd


class Prediction(NamedTuple):
    """One image's row: the two most probable classes. Where the image cannot be read, the problem alone.

    `path` is None for an image that is no file.
    """

    path: str | None
    label: str | None  # the column `class`
    probability: float | None
    second_class: str | None
    second_probability: float | None
    problem: str | None


COLUMNS = ["path", "class", "probability", "second_class", "second_probability", "problem"]


def frame_of(rows: Iterable[Prediction]) -> "pd.DataFrame":
    """One row an image. Its types are the same whatever is missing."""
    import pandas as pd

    numbers = ("probability", "second_probability")
    frame = pd.DataFrame(list(rows), columns=COLUMNS)
    return frame.astype({name: "float64" if name in numbers else "string" for name in COLUMNS})


def _csv(frame: "pd.DataFrame") -> bytes:
    return frame.to_csv(index=False, float_format="%.6f").encode()


def _parquet(frame: "pd.DataFrame") -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()


def _json_lines(frame: "pd.DataFrame") -> bytes:
    return frame.to_json(orient="records", lines=True, force_ascii=False).encode()


# Suffix -> from a frame to the file's bytes.
TABLES: dict[str, Callable[["pd.DataFrame"], bytes]] = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines}


def check_table(file: Path) -> None:
    """Check, before any work, that predictions can be written as this file.

    Raises:
        ConfigError: its suffix names no format, or its folder does not exist.
    """
    if file.suffix not in TABLES:
        raise ConfigError(f"--out {shown(file)}: write a name that ends with {', '.join(TABLES)}")
    if not file.parent.is_dir():
        raise ConfigError(f"--out {shown(file)}: no folder {shown(file.parent)}: make it, or give another name")


def table_of(rows: Iterable[Prediction], suffix: str) -> bytes:
    """The bytes of a file with this suffix."""
    return TABLES[suffix](frame_of(rows))
