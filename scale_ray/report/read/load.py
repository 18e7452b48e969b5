"""Read a store into tidy frames: one row per cell, one row per point of a curve."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from scale_ray.config import suggest
from scale_ray.report.read.curves import Curves
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.index import read_rows
from scale_ray.report.read.labels import tuned_note
from scale_ray.report.read.rows import COLUMNS, OTHER_FIELDS, VALIDATORS, Rows, without_garbage_collection
from scale_ray.report.read.unlearned import unlearned
from scale_ray.store import Store

_IMAGES = ["classes", "source_images", "target_images", "skipped_images"]
_TYPES = {
    **dict.fromkeys(["seed", "other_fields"], "int64"),
    **dict.fromkeys(["steps", "shared_steps", *_IMAGES, "workers", "recipe_version"], "Int64"),
    **dict.fromkeys(["target_accuracy", "teacher_accuracy", "source_val_accuracy", "class_mean_accuracy"], "float64"),
    **dict.fromkeys(["kept_fraction", "kept_accuracy", "oracle_accuracy", *VALIDATORS], "float64"),
    **dict.fromkeys(["wall_seconds", "charged_seconds", "evaluation_seconds", "worker_hours"], "float64"),
    "git_dirty": "boolean",
}
_ORDER = ["benchmark", "method", "losses", "backbone", "pair", "seed", "cell"]


def load(store: str | Path, *, study: str | None = None, oracle: bool = False) -> pd.DataFrame:
    """Load every cell of a store, planned or recorded, as one row. Rows are sorted by config, not by time.

    | column | unit, meaning |
    |---|---|
    | cell | the cell's id, 64 hex digits |
    | study | names of the studies that planned it; missing if none did |
    | benchmark, source, target, pair, method, losses, seed | pair `source>target`, losses `ce+ssl+dist+reg` |
    | backbone | with a frozen encoder, `resnet50 (frozen)` |
    | variant | the method, with what differs from its usual form: `scale bank`, `cdan+E` |
    | pre_training | the backbone and the origin of its weights: `resnet50, imagenet` |
    | config | a number; cells that share it have the same config and differ only in data, weights or recipe |
    | status | `done`, `failed`, `missing` (planned, no record), `stale` (record of another recipe version) |
    | target_accuracy, source_val_accuracy | percent, of the student after the last step |
    | teacher_accuracy | percent, of the teacher after the last step, on the target; missing without a teacher |
    | class_mean_accuracy | percent, of the student on the target: mean over classes; missing without confusion matrix |
    | kept_fraction, kept_accuracy | fraction (0 to 1) of pseudo-labels kept at the end; percent of them correct |
    | validator_source_val, validator_entropy, validator_im | label-free scores, higher is better: percent, nats, nats |
    | validator_snd, validator_bnm, validator_dev | nats, 0 to 1, minus an error rate; missing in older records |
    | validator_classami, validator_transfer_score | up to 1, up to 2; missing in older records |
    | validator_reverse, validator_mixval, validator_circular | percent, 0 to 1, percent; missing in older records |
    | validator_coherence | percent, 0 by chance; missing in older records |
    | steps, shared_steps | training steps; how many of them were trained once for several cells |
    | wall_seconds | seconds of training and evaluation |
    | evaluation_seconds | what evaluation took of wall_seconds; missing in older records |
    | charged_seconds | wall_seconds with a shared stage's time divided among its cells; sums to the study's time |
    | worker_hours | charged_seconds (else wall_seconds) x workers, in hours; GPU hours if device is a GPU |
    | classes, source_images, target_images | how many of them there are; missing in older records |
    | skipped_images | number of unreadable images left out |
    | error, traceback | `kind: first line of the message`; the full traceback |
    | device, host, runner, workers, backend | where the cell ran |
    | started | ISO 8601, UTC |
    | git_commit, git_dirty, package_version, recipe_version, versions | the code that ran; versions is JSON |
    | source_digest, target_digest, weights_digest | digests of the inputs |
    | any other input's digest | of a user's own code, as in `method mine_digest` |
    | superseded | true for an old record whose config has a newer cell; no table counts it |
    | unlearned | true for a training that did not learn its source; tables mark what it enters |
    | any other field of `TrialConfig` | by dotted path (`losses.threshold`), if its values differ; `tuning` as text |
    | oracle_accuracy | percent, the curve's highest target_accuracy, chosen by target labels; only on request |

    A stale row keeps its accuracies: filter by status before averaging.

    Args:
        store: a folder, s3://… or gs://….
        study: return only the cells that this study planned.
        oracle: add the column oracle_accuracy.

    Raises:
        StoreError: the store does not exist, or a plan or record in it cannot be read; none is skipped.
        ReportError: the study does not exist.
    """
    cells = cells_of(read_rows(Store(store)), study)
    return cells if oracle else cells.drop(columns="oracle_accuracy")


def load_curves(store: str | Path, *, study: str | None = None) -> pd.DataFrame:
    """Load every point of the curves of done cells, sorted by cell and step.

    | column | unit, meaning |
    |---|---|
    | cell | as in `load`; categorical |
    | step | training steps done |
    | target_accuracy, teacher_accuracy, source_val_accuracy | percent |
    | kept_fraction | fraction (0 to 1) of target images whose pseudo-label passed the threshold |
    | kept_accuracy | percent of those pseudo-labels that are correct |
    | loss.ce, loss.ssl, … | mean of the unweighted loss term since the previous point |

    Raises as `load` does.
    """
    opened = Store(store)
    rows = read_rows(opened)
    return Curves(opened).of(cells_of(rows, study)["cell"])


def varying_fields(cells: pd.DataFrame) -> list[str]:
    """The columns named by the dotted path of a config field: the fields without a column of their own that differ."""
    return [path for path in OTHER_FIELDS if path in cells.columns]


def cells_of(rows: Rows, study: str | None = None) -> pd.DataFrame:
    """Cells (with oracle_accuracy) of rows that are there. Raises a ReportError as `load` does."""
    with without_garbage_collection():
        cells = pd.DataFrame.from_records(list(rows.rows()), columns=COLUMNS).astype(_TYPES)
    for role, digests in sorted(rows.code().items()):
        cells[f"{role}_digest"] = cells["cell"].map(digests)
    fields = ["benchmark", "source", "target", "method", "losses", "backbone", "seed", "other_fields"]
    cells["config"] = cells.groupby(fields, sort=False).ngroup()
    cells["superseded"] = _superseded(cells)
    cells["unlearned"] = unlearned(cells)
    if study is not None:
        if study not in rows.plans:
            hint = suggest(study, rows.plans)
            raise ReportError(f"no study {study!r} here: {hint}studies: {', '.join(sorted(rows.plans)) or 'none'}")
        planned_by = cells["study"].fillna("").str.split(", ")
        cells = cells[[study in names for names in planned_by]]
    cells = cells.sort_values(_ORDER, ignore_index=True)
    _add_varying(cells, rows.other_values)
    cells["config"] = pd.factorize(cells["config"])[0]
    return cells.drop(columns="other_fields")


def _superseded(cells: pd.DataFrame) -> pd.Series:
    """Mark old records whose config has a newer cell: another recipe or other data gave the cell a new id.

    Two current records of one config are not resolved here if no study planned them, or if two did:
    `completeness.check` refuses them.
    """
    unplanned, stale = cells["study"].isna(), cells["status"] == "stale"
    planned_anew = cells["config"].isin(cells.loc[~unplanned, "config"])
    answered = cells["config"].isin(cells.loc[~stale, "config"])
    return unplanned & (planned_anew | (stale & answered))


def _add_varying(cells: pd.DataFrame, other_values: list[tuple[object, ...]]) -> None:
    """Add a column for every field whose values differ among these cells. Tuples become JSON, `tuning` a text."""
    numbers = cells["other_fields"].to_numpy()
    present = np.unique(numbers)
    for index, path in enumerate(OTHER_FIELDS):
        if len({other_values[number][index] for number in present}) > 1:
            values = (other_values[number][index] for number in numbers)
            if path == "tuning":
                cells[path] = [tuned_note(value) for value in values]
            else:
                cells[path] = [json.dumps(value) if isinstance(value, tuple) else value for value in values]
