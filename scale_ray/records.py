"""Records: every finished trial leaves one, done or failed.

`result` is a function of the config, the data and the machine, bit for bit. Everything that may differ between two runs
of the same trial (time, host, versions) is in `provenance`.
"""

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scale_ray.config import RECIPE_VERSION, ConfigError, TrialConfig, check_name

SCHEMA_VERSION = 1

# Names of the scores of a curve's point and of a result. scale_ray/training/validators.py computes them.
VALIDATOR_NAMES = (
    "source_val", "entropy", "im", "snd", "bnm", "dev", "classami", "transfer_score", "reverse", "mixval",
    "circular", "coherence",
)  # fmt: skip

# Scored at the last point of a curve alone: they cost more than the others together (docs/method.md, section 7).
LAST_POINT_VALIDATORS = frozenset({"classami", "mixval", "circular", "coherence"})

# They reward certainty, which some methods and loss terms train for and others do not: they rank trainings of one
# method and loss combination only.
WITHIN_ONE_METHOD = ("entropy", "im", "snd", "bnm")

# Methods that read no source image after a part of their steps: accuracy on the source is not theirs to keep.
SOURCE_FREE = ("shot", "aad")

# What chooses between methods unless another one is named. Of the validators that may, its worst choice for a set of
# benchmarks/results/leaderboard.md costs the fewest points (docs/method.md, section 7).
DEFAULT_CHOOSER = "transfer_score"

# Scores of trainings among others on the same pair and seed: scale_ray/report/selection/set_validators.py.
SET_VALIDATOR_NAMES = ("ensv",)

# The only "validator" that reads target labels: target_accuracy. It measures the others and is never a default.
ORACLE = "oracle"

_ROW = re.compile(r"\[\n\s+\d+(?:,\n\s+\d+)*\n\s+\]")  # a list of integers only; JSON strings contain no line breaks

# What ran the training: the process of `scale-ray train`, a Ray Tune trial, or workers of Ray Train.
Runner = Literal["process", "ray tune", "ray train"]


@dataclass(frozen=True)
class Ran:
    """How a training was run, as its record says."""

    runner: Runner = "process"
    workers: int = 1
    backend: str | None = None


# Numbers that tables and figures can hold. JSON has no largest one.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CurvePoint(_Part):
    """The state of a training after `step` steps. Accuracies are in percent; losses are means since the last point."""

    step: Count
    target_accuracy: Finite | None  # None where the target has no labels
    teacher_accuracy: Finite | None
    source_val_accuracy: Finite
    losses: dict[str, float]
    kept_fraction: Finite | None  # share of target images whose pseudo-label passed the threshold
    kept_accuracy: Finite | None = None  # percentage of these that are correct, since the last point
    kept_balance: Finite | None = None  # how evenly these spread over the classes: 100 where all are alike
    agreement: Finite | None = None  # percentage of target images on which student and teacher agree
    validators: dict[str, float] = {}  # label-free scores of the student, higher is better; empty in older records


class Result(_Part):
    """The numbers of a finished training. Accuracies are in percent, of the last iterate (docs/method.md, 7)."""

    target_accuracy: Finite | None  # student, whole target domain; None where it has no labels
    teacher_accuracy: Finite | None  # None where the method keeps no teacher, or the target has no labels
    source_val_accuracy: Finite  # student, held-out source images
    steps: Count
    curve: list[CurvePoint]
    validators: dict[str, float] = {}  # label-free scores of the student, higher is better; empty in older records
    classes: list[str] = []  # in the order of the confusion matrix
    confusion: list[list[Count]] = []  # target images by true class (rows) and the student's prediction (columns)
    predicted: list[Count] = []  # target images by the student's prediction; empty in older records
    agreement: Finite | None = None  # percentage of target images on which student and teacher agree
    skipped: dict[str, list[str]]  # domain -> unreadable images that were left out (data.corrupt = skip)
    images: dict[str, Count] = {}  # domain -> number of images that were used; empty in older records


class Failure(_Part):
    """Why a trial ended without a result."""

    kind: str  # the exception's class
    message: str
    traceback: str


class Provenance(_Part):
    """Where and when a record was made, and with which software."""

    started: str  # ISO 8601, UTC
    wall_seconds: Finite  # training and evaluation, over all sessions and stages; for a failed trial, its last session
    # Like wall_seconds, with the time of a shared stage divided among its cells, so that the sum is the study's time.
    charged_seconds: Finite | None = None
    evaluation_seconds: Finite | None = None  # what evaluation took of wall_seconds
    shared_steps: Count = 0  # how many of the steps were trained once for several cells
    runner: Runner = "process"
    workers: Count = 1  # processes that trained together
    backend: str | None = None  # of their communication: nccl or gloo
    host: str
    device: str
    threads: Count
    git_commit: str | None
    git_dirty: bool | None
    versions: dict[str, str]


class Record(_Part):
    """One trial's outcome. `id` is the identity of (config, inputs, recipe)."""

    schema_version: int = SCHEMA_VERSION
    recipe_version: Count = RECIPE_VERSION
    id: str
    status: Literal["done", "failed"]
    config: TrialConfig
    inputs: dict[str, str]
    result: Result | None = None
    failure: Failure | None = None
    provenance: Provenance

    def to_json(self) -> str:
        """Readable JSON, with keys in declared order and each row of a matrix on one line."""
        # One count per line would make a confusion matrix of 65 classes four times as long, and slow to read.
        return _ROW.sub(lambda row: re.sub(r"\s+", " ", row[0]), self.model_dump_json(indent=1)) + "\n"


def score(measured: CurvePoint | Result, validator: str) -> float:
    """The score that a validator gave a curve's point or a result; for `oracle`, the target accuracy.

    Raises:
        ConfigError: there is no such validator, the record is older than it, or the target has no labels.
    """
    check_name("validator", validator, [*VALIDATOR_NAMES, ORACLE])
    if validator == ORACLE:
        if measured.target_accuracy is None:
            raise ConfigError(f"{ORACLE} reads target labels, and this target has none: choose another validator")
        return measured.target_accuracy
    if validator not in measured.validators:
        raise ConfigError(f"a record has no score {validator!r}: it is older than this validator, train its cell again")
    return measured.validators[validator]


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(**facts: Any) -> Provenance:
    """Provenance of a trial that ran in this process. `facts` are the fields that only the caller knows."""
    commit, dirty = _git_state()
    facts |= {name: round(value, 3) for name, value in facts.items() if name.endswith("_seconds")}
    return Provenance(
        host=platform.node(),
        git_commit=commit,
        git_dirty=dirty,
        versions=_versions(),
        **facts,
    )


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("scale-ray", "torch", "torchvision", "timm", "kornia", "pillow", "numpy", "ray", "optuna"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@cache
def _git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package runs from; (None, None) for an installed wheel, or if git is missing."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None, None

    def git(*arguments: str) -> Any:
        # No optional locks: they could disturb a commit that the user makes while trials start.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    commit = git("rev-parse", "HEAD")
    if commit.returncode != 0:
        return None, None
    return commit.stdout.strip(), bool(git("status", "--porcelain", "--untracked-files=no").stdout.strip())
