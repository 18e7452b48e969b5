"""From a store to tidy frames: one row a cell, one row a point of a curve. Nothing is averaged here."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scale_ray.config import suggest
from scale_ray.errors import UserError
from scale_ray.report.labels import tuned_note
from scale_ray.report.rows import COLUMNS, SETTINGS, VALIDATORS, Reader

_TYPES = {
    **dict.fromkeys(["seed", "settings"], "int64"),
    **dict.fromkeys(["steps", "shared_steps", "skipped_images", "workers", "recipe_version"], "Int64"),
    **dict.fromkeys(["target_accuracy", "teacher_accuracy", "source_val_accuracy", "class_mean_accuracy"], "float64"),
    **dict.fromkeys(["kept_fraction", "kept_accuracy", "oracle_accuracy", *VALIDATORS], "float64"),
    **dict.fromkeys(["wall_seconds", "charged_seconds", "worker_hours"], "float64"),
    "git_dirty": "boolean",
}
_ORDER = ["benchmark", "method", "losses", "backbone", "pair", "seed", "cell"]


class ReportError(UserError):
    """The store's records make no table that could be trusted; the message names them and the remedy."""


class Contents(NamedTuple):
    """What a store holds: `cells` as `load` returns them, `curves` as `load_curves` does."""

    cells: pd.DataFrame
    curves: pd.DataFrame


def load(store: str | Path, *, study: str | None = None, oracle: bool = False) -> pd.DataFrame:
    """Every cell of a store: planned cells and records, one row a cell, ordered by what it is, not by when it ran.

    | column | unit, meaning |
    |---|---|
    | cell | the identity, 64 hex digits |
    | study | names of the studies that planned it, missing where none did |
    | benchmark, source, target, pair, method, losses, seed | pair `source>target`, losses `ce+ssl+dist+reg` |
    | backbone | with a frozen encoder, `resnet50 (frozen)` |
    | variant | the method, and what sets it apart from its usual form: `scale bank`, `cdan+E` |
    | pre_training | the backbone and where its weights are from: `resnet50, imagenet` |
    | config | number; cells that share it have one config and differ in data, weights or recipe alone |
    | status | `done`, `failed`, `missing` (planned, no record), `stale` (record of another recipe version) |
    | target_accuracy, source_val_accuracy | percent, of the student after the last step |
    | teacher_accuracy | percent, of the teacher after the last step, on the target; missing without a teacher |
    | class_mean_accuracy | percent, of the student on the target: mean over classes; missing without confusion matrix |
    | kept_fraction, kept_accuracy | share (0 to 1) of pseudo-labels kept at the curve's end; percent of them right |
    | validator_source_val, validator_entropy, validator_im | label-free scores, higher is better: percent, nats, nats |
    | validator_snd, validator_bnm, validator_dev | nats, 0 to 1, minus a share of errors; missing in older records |
    | steps, shared_steps | training steps; those of them that were trained once for several cells |
    | wall_seconds | seconds of training and evaluation |
    | charged_seconds | the same, a shared stage's time divided by its cells: sums to what a study took |
    | worker_hours | hours: charged_seconds (or wall_seconds, where there is none) x workers; of GPUs if device is one |
    | skipped_images | unreadable images left out |
    | error, traceback | `kind: first line of the message`; the whole |
    | device, host, runner, workers, backend | what it ran on |
    | started | ISO 8601, UTC |
    | git_commit, git_dirty, package_version, recipe_version, versions | the code; versions is JSON |
    | source_digest, target_digest, weights_digest | what was read |
    | superseded | an old record beside the one that answers its config now; no table counts it |
    | any other field of `TrialConfig` | by dotted path (`losses.threshold`), where values differ; of `tuning` a note |
    | oracle_accuracy | percent, the curve's highest target_accuracy: chosen by target labels; only if asked for |

    A stale row keeps its accuracies: filter by status before averaging.

    Args:
        store: a folder, s3://… or gs://….
        study: only the cells that this study planned.
        oracle: add the column oracle_accuracy.

    Raises:
        StoreError: no such store, or a plan or record in it that cannot be read; none is skipped.
        ReportError: no such study.
    """
    cells = _cells(Reader(store), study)
    return cells if oracle else cells.drop(columns="oracle_accuracy")


def load_curves(store: str | Path, *, study: str | None = None) -> pd.DataFrame:
    """Every point of the curves of done cells, ordered by cell and step.

    | column | unit, meaning |
    |---|---|
    | cell | as in `load`; categorical |
    | step | training steps done |
    | target_accuracy, teacher_accuracy, source_val_accuracy | percent |
    | kept_fraction | share (0 to 1) of target images whose pseudo-label passed the threshold |
    | kept_accuracy | percent of the teacher's labels that pass the threshold that are right |
    | loss.ce, loss.ssl, … | mean of the loss term since the last point, unweighted |

    Raises as `load` does.
    """
    return read(store, study=study).curves


def read(store: str | Path, *, study: str | None = None) -> Contents:
    """Cells (with oracle_accuracy) and curves in one pass over the store. Raises as `load` does."""
    reader = Reader(store, curves=True)
    cells = _cells(reader, study)
    curves = reader.curves.frame()
    if study is not None:
        curves = curves[curves["cell"].isin(set(cells["cell"]))].reset_index(drop=True)
    return Contents(cells, curves)


def varying_fields(cells: pd.DataFrame) -> list[str]:
    """The columns that hold config fields by dotted path: those whose values differ and that have no named column."""
    return [path for path in SETTINGS if path in cells.columns]


def _cells(reader: Reader, study: str | None) -> pd.DataFrame:
    with _without_collection():
        cells = pd.DataFrame.from_records(list(reader.rows()), columns=COLUMNS).astype(_TYPES)
    what = ["benchmark", "source", "target", "method", "losses", "backbone", "seed", "settings"]
    cells["config"] = cells.groupby(what, sort=False).ngroup()
    cells["superseded"] = _superseded(cells)
    if study is not None:
        if study not in reader.studies:
            hint = suggest(study, reader.studies)
            raise ReportError(f"no study {study!r} here: {hint}studies: {', '.join(sorted(reader.studies)) or 'none'}")
        planned_by = cells["study"].fillna("").str.split(", ")
        cells = cells[[study in names for names in planned_by]]
    cells = cells.sort_values(_ORDER, ignore_index=True)
    _add_varying(cells, reader.settings)
    cells["config"] = pd.factorize(cells["config"])[0]
    return cells.drop(columns="settings")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Rows hold no cycles, and looking for some among 100,000 of them again and again takes most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _superseded(cells: pd.DataFrame) -> pd.Series:
    """A new recipe, or other data, gives a planned cell a new id: its old record must not stand beside it as another.

    Two current records of one config that nobody planned, or that two studies planned, are not told apart so:
    `completeness.check` refuses them.
    """
    unplanned, stale = cells["study"].isna(), cells["status"] == "stale"
    planned_anew = cells["config"].isin(cells.loc[~unplanned, "config"])
    answered = cells["config"].isin(cells.loc[~stale, "config"])
    return unplanned & (planned_anew | (stale & answered))


def _add_varying(cells: pd.DataFrame, settings: list[tuple[object, ...]]) -> None:
    """A column for every field whose values differ among these cells; a tuple is written as JSON, tuning as a note."""
    numbers = cells["settings"].to_numpy()
    present = np.unique(numbers)
    for position, path in enumerate(SETTINGS):
        if len({settings[number][position] for number in present}) > 1:
            values = (settings[number][position] for number in numbers)
            if path == "tuning":
                cells[path] = [tuned_note(value) for value in values]
            else:
                cells[path] = [json.dumps(value) if isinstance(value, tuple) else value for value in values]
