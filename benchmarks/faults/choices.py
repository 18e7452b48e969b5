"""What one run of the campaign is, drawn from (seed, number of the run): the same run can be made again."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Longest wait after the record that a moment counts from: a cell takes a second or two.
_SECONDS = 4.0

# Kinds of victims by where a study runs; `s3` joins them where the store is a bucket.
_LOCAL = ("driver", "trial", "head")
_CLUSTER = (*_LOCAL, "raylet")
_TRAIN = ("worker", "controller")  # of Ray Train, which trials of several workers run under


@dataclass(frozen=True)
class Kill:
    """One kill of a run.

    Attributes:
        kinds: kinds of victims, in the order in which they are tried: a study has no controller at every moment.
        after: how many cells are done before it.
        seconds: time from then on.
        writing: wait until the victim's temporary file is in the store.
        which: share of the way through the processes of the kind, 0 to 1.
    """

    kinds: tuple[str, ...]
    after: int
    seconds: float
    writing: bool
    which: float


@dataclass(frozen=True)
class Run:
    """One study, where it runs and how it is disturbed."""

    seed: int
    number: int
    cells: int
    place: str  # local or cluster
    workers: int
    store: str  # folder or s3
    drivers: int
    kills: tuple[Kill, ...]

    @property
    def title(self) -> str:
        workers = "one worker a trial" if self.workers == 1 else "two workers a trial"
        where = "local Ray" if self.place == "local" else f"cluster, {workers}"
        return f"run {self.number} (seed {self.seed}): {where}, store {self.store}, drivers {self.drivers}"


def draw(
    seed: int,
    number: int,
    *,
    cells: int,
    kills: int,
    drivers: Sequence[int],
    places: Sequence[str],
    stores: Sequence[str],
) -> Run:
    """The run of that number. Every so many runs, each combination of place, store and drivers comes once.

    Args:
        cells: of the study.
        kills: of the run.
        drivers, places, stores: what the runs are spread over.
    """
    trials = [(place, workers) for place in places for workers in ((1,) if place == "local" else (1, 2))]
    combinations = list(itertools.product(trials, stores, drivers))
    block, position = divmod(number, len(combinations))
    order = np.random.default_rng([seed, block]).permutation(len(combinations))
    (place, workers), store, count = combinations[order[position]]
    numbers = np.random.default_rng([seed, block, position, number])
    kinds = (
        *(_LOCAL if place == "local" else _CLUSTER),
        *(_TRAIN if workers > 1 else ()),
        *(("s3",) if store == "s3" else ()),
    )
    moments = sorted(int(moment) for moment in numbers.integers(0, cells - 1, kills))
    chosen = tuple(_kill(numbers, kinds, moment) for moment in moments)
    return Run(seed, number, cells, place, workers, store, count, chosen)


def _kill(numbers: np.random.Generator, kinds: Sequence[str], after: int) -> Kill:
    order = tuple(kinds[index] for index in numbers.permutation(len(kinds)))
    return Kill(
        kinds=order,
        after=after,
        seconds=round(float(numbers.uniform(0, _SECONDS)), 2),
        writing=bool(numbers.random() < 0.3),
        which=float(numbers.random()),
    )
