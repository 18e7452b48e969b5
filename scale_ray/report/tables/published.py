"""Published accuracies, shown beside the measured ones of the same benchmark and never compared: protocols differ.

To add those of a benchmark, add a file to the folder `published` and one entry to _METHODS.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import pandas as pd

from scale_ray.config import ModelConfig
from scale_ray.report.read.labels import pre_training
from scale_ray.report.tables.grid import AVERAGE, Beside, Position

_CITED = "published: figures of other authors, cited and not measured here; protocols differ."
_ENCODERS = {
    "resnet50": ModelConfig(backbone="resnet50", weights="imagenet"),
    "clip-rn50": ModelConfig(backbone="clip_rn50", weights="openai"),
    "lenet": ModelConfig(backbone="lenet", weights="none"),
}


@dataclass(frozen=True)
class _Methods:
    """Published accuracies of methods on a benchmark.

    Attributes:
        file: in the folder `published`: a method a line, a domain pair a column.
        letters: domain -> what the file's columns call it, where that is not its name.
        notes: what all figures of the file have in common.
    """

    file: str
    letters: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


_METHODS = {
    "office_home": _Methods("office_home_methods.csv", {"Art": "A", "Clipart": "C", "Product": "P", "Real_World": "R"}),
    "digits_standard": _Methods(
        "digits_standard_methods.csv",
        notes=(
            "published: accuracy on the target's test split, which no training saw. Measured here: on its training "
            "split, which is trained on without labels.",
            "published: the papers' small networks are read as lenet.",
        ),
    ),
}


def label(column: str) -> str:
    """The heading of a column of published accuracies."""
    return f"{column} (published)"


def beside_ablation(benchmark: str, backbones: list[str]) -> Beside | None:
    """The paper's Table 1 for these backbones (mean and standard deviation over pairs), or None if it has none."""
    if benchmark != "office_home":
        return None
    printed = _read("scale_table1.csv")
    printed = printed[printed["backbone"].isin(backbones)]
    if printed.empty:
        return None
    terms = printed[["ce", "ssl", "dist", "reg"]]
    rows = ["+".join(str(name) for name, on in line.items() if on) for line in terms.to_dict("records")]
    positions = [(row, label(backbone)) for row, backbone in zip(rows, printed["backbone"], strict=True)]
    figures: dict[Position, tuple[float, float | None]] = {
        position: (float(mean), float(std))
        for position, mean, std in zip(positions, printed["accuracy"], printed["std"], strict=True)
    }
    notes = [f"{_CITED} SCALE, Table 1, on ImageNet weights: mean ± standard deviation over pairs, as printed."]
    renamed = printed[["backbone_in_paper", "backbone"]].drop_duplicates()
    notes += [
        f"published: the paper's {name} is read as {backbone}."
        for name, backbone in renamed.itertuples(index=False)
        if name.lower().replace("-", "") != backbone
    ]
    for note, rows_of in _notes(rows, printed["note"]).items():
        notes.append(f"published {rows_of}: {note}.")
    return Beside(
        [label(name) for name in backbones if name in set(printed["backbone"])], _unique(rows), figures, notes
    )


def beside_methods(benchmark: str, columns: list[str]) -> dict[str, Beside]:
    """Pre-training -> accuracies of methods on a benchmark, for those columns that are a pair or the average."""
    cited = _METHODS.get(benchmark)
    if cited is None:
        return {}
    printed = _read(cited.file)
    names = {column: name for column in columns if (name := _column(column, cited.letters)) in printed.columns}
    if not names:
        return {}
    return {
        pre_training(_ENCODERS[str(encoder)]): _beside_methods(share, names, cited.notes)
        for encoder, share in printed.groupby("encoder")
    }


def _beside_methods(printed: pd.DataFrame, names: dict[str, str], common: tuple[str, ...]) -> Beside:
    """`names`: column -> its name in the file."""
    rows = ["scale (ce+ssl+dist+reg)" if method == "scale" else method for method in printed["method"]]
    figures: dict[Position, tuple[float, float | None]] = {
        (row, label(column)): (float(value), None)
        for column, name in names.items()
        for row, value in zip(rows, printed[name], strict=True)
        if not pd.isna(value)
    }
    notes = [_CITED, *common]
    if AVERAGE in names:
        notes.append("published average: over all 12 pairs, as printed.")
    notes += [f"published {of}: {source}." for source, of in _notes(rows, printed["source"]).items()]
    notes += [f"published {of}: {note}." for note, of in _notes(rows, printed["note"]).items()]
    return Beside([label(column) for column in names], rows, figures, notes)


@cache
def _read(name: str) -> pd.DataFrame:
    with resources.files("scale_ray.report.tables").joinpath("published", name).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _column(column: str, letters: Mapping[str, str]) -> str:
    source, _, target = column.partition(">")
    return "average_printed" if column == AVERAGE else f"{letters.get(source, source)}>{letters.get(target, target)}"


def _notes(rows: list[str], notes: pd.Series) -> dict[str, str]:
    """Note -> the rows that it is about, separated by commas."""
    found: dict[str, list[str]] = {}
    for row, note in zip(rows, notes, strict=True):
        if not pd.isna(note):
            found.setdefault(str(note), []).append(row)
    return {note: ", ".join(_unique(of)) for note, of in found.items()}


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
