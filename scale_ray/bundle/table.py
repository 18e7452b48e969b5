"""Predictions as a file: CSV, Parquet or JSON lines, by its suffix."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from scale_ray.bundle.model import COLUMNS, Prediction
from scale_ray.config import ConfigError
from scale_ray.errors import shown

if TYPE_CHECKING:
    import pandas as pd


def frame_of(rows: Iterable[Prediction]) -> "pd.DataFrame":
    """One row an image. Texts that nobody has are empty, and numbers are not a number."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=COLUMNS)
    numbers = ["probability", "second_probability"]
    return frame.astype(
        {name: "float64" if name in numbers else "str" for name in COLUMNS if frame[name].notna().any()}
    )


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
