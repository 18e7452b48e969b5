"""Labels of methods, loss combinations and pre-training in a table, and their order."""

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from scale_ray.config import DEFAULTS, NAMED_WEIGHTS, ModelConfig, TuningBudget

if TYPE_CHECKING:
    import pandas as pd

# The fields, besides the backbone, that the label of `pre_training` shows, by dotted path.
PRE_TRAINING = ("model.weights",)


def pre_training(model: ModelConfig) -> str:
    """The label that comparable rows share: `resnet50, imagenet`, `resnet50 (frozen), imagenet`, `clip_rn50, openai`.

    Weights from a file are labelled by the file's name. Files of the same name in two folders share a label; tables
    are then split by `model.weights`.
    """
    named = "random weights" if model.weights == "none" else model.weights
    return join(model.label, named if model.weights in NAMED_WEIGHTS else PurePath(model.weights).name)


def combination_labels(cells: "pd.DataFrame") -> "pd.Series":
    """Labels by loss combination: `ce+ssl`, `ce (dann)`, `ce+dist (scale bank)`.

    The variant is left out for `scale`, and for `source_only`, which is labelled `ce`. If several variants of scale
    have the same combination, only the usual variant goes without.
    """
    shared = cells.groupby("losses")["method"].transform("nunique") > 1
    several = cells.groupby(["losses", "method"])["variant"].transform("nunique") > 1
    usual = ~several | (cells["variant"] == cells["method"])
    of_scale = (cells["method"] == "scale") & ~shared & usual
    plain = (cells["method"] == "source_only") & (cells["losses"] == "ce") | of_scale
    return cells["losses"].where(plain, cells["losses"] + " (" + cells["variant"] + ")")


def method_labels(cells: "pd.DataFrame") -> "pd.Series":
    """Labels by method: `scale (ce+ssl)`, `scale bank (ce+dist)`; a method with ce alone is its variant: `cdan+E`."""
    columns = (cells[name] for name in ("method", "variant", "losses"))
    return cells.assign(label=list(map(method_label, *columns)))["label"]


def method_label(method: str, variant: str, losses: str) -> str:
    """The label of one cell of `method_labels`."""
    return variant if method != "scale" and losses == "ce" else f"{variant} ({losses})"


def tuned_note(tuning: TuningBudget | None) -> str:
    """How a config's values were found: `untuned`, or the budget of its search."""
    return "untuned" if tuning is None else f"tuned: {tuning}"


def join(*parts: str) -> str:
    """The non-empty parts, separated by commas."""
    return ", ".join(part for part in parts if part)


def count(number: int, noun: str) -> str:
    """`1 record`, `2,000 records`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key that compares digits as numbers: resnet50 before resnet101."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def by_combination(label: str) -> tuple[int, list[int], str]:
    """A sort key: combinations of fewer terms first, then by the order in which a combination writes its terms."""
    known = list(DEFAULTS.losses.terms)
    names = [term.rpartition("*")[2] for term in label.partition(" ")[0].split("+")]
    return len(names), [known.index(name) if name in known else len(known) for name in names], label


def by_method(label: str) -> tuple[int, str, tuple[int, list[int], str], str]:
    """A sort key: source_only first, scale last, a variant below its method."""
    variant, _, losses = label.partition(" (")
    method = re.split(r"\W", variant)[0]
    return {"source_only": 0, "scale": 2}.get(method, 1), method, by_combination(losses.rstrip(")")), variant
