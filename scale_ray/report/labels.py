"""How methods, loss combinations and pre-training are written in a table, and in which order."""

import re
from pathlib import PurePath

import pandas as pd

from scale_ray.config import NAMED_WEIGHTS, LossesConfig, ModelConfig, TuningBudget

# The fields besides the backbone that `pre_training` tells, by dotted path.
PRE_TRAINING = ("model.weights",)


def pre_training(model: ModelConfig) -> str:
    """The rows that may be compared share it: `resnet50, imagenet`, `resnet50 (frozen), imagenet`, `clip_rn50, openai`.

    Of a file its name; files of one name in two folders have the same, and tables are split by `model.weights` then.
    """
    named = "random weights" if model.weights == "none" else model.weights
    return join(model.label, named if model.weights in NAMED_WEIGHTS else PurePath(model.weights).name)


def combination_labels(cells: pd.DataFrame) -> pd.Series:
    """`ce+ssl`; with its variant, `ce (dann)`, where that is neither scale nor the one source_only that `ce` means.

    Where several variants of scale have a combination, the usual one alone goes without: `ce+dist (scale bank)`.
    """
    shared = cells.groupby("losses")["method"].transform("nunique") > 1
    several = cells.groupby(["losses", "method"])["variant"].transform("nunique") > 1
    usual = ~several | (cells["variant"] == cells["method"])
    of_scale = (cells["method"] == "scale") & ~shared & usual
    plain = (cells["method"] == "source_only") & (cells["losses"] == "ce") | of_scale
    return cells["losses"].where(plain, cells["losses"] + " (" + cells["variant"] + ")")


def method_labels(cells: pd.DataFrame) -> pd.Series:
    """`scale (ce+ssl)`, `scale bank (ce+dist)`; what trains with ce alone needs no combination: `dann`, `cdan+E`."""
    plain = (cells["method"] != "scale") & (cells["losses"] == "ce")
    return cells["variant"].where(plain, cells["variant"] + " (" + cells["losses"] + ")")


def tuned_note(tuning: TuningBudget | None) -> str:
    """How a config's values were found, where tables tell tuned from untuned."""
    return "untuned" if tuning is None else f"tuned: {tuning}"


def join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key under which resnet50 comes before resnet101."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def by_combination(label: str) -> tuple[int, list[int], str]:
    """Few terms first, then in the order in which terms are written."""
    known = list(LossesConfig().terms)
    names = [term.rpartition("*")[2] for term in label.partition(" ")[0].split("+")]
    return len(names), [known.index(name) if name in known else len(known) for name in names], label


def by_method(label: str) -> tuple[int, str, tuple[int, list[int], str], str]:
    """source_only first, scale last, a variant below its kin."""
    variant, _, losses = label.partition(" (")
    method = re.split(r"\W", variant)[0]
    return {"source_only": 0, "scale": 2}.get(method, 1), method, by_combination(losses.rstrip(")")), variant
