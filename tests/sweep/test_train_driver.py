"""Training under Ray Train: which failure ended it, and what its workers agree on."""

from typing import Any

import pytest
import ray.train
import torch
from ray.exceptions import ActorDiedError
from ray.train.v2.api.exceptions import WorkerGroupError

from scale_ray.data.benchmarks import DataError
from scale_ray.sweep.train_driver import cause
from scale_ray.sweep.train_worker import SharedCheckpoints
from scale_ray.workers import Workers

# What a worker raises that waited for another one.
WAITED = RuntimeError("[gloo] Connection closed by peer")
LOST, BAD_IMAGE = ActorDiedError(), DataError("image.png: cannot be read")


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([WAITED, LOST], LOST),
        ([WAITED, BAD_IMAGE], BAD_IMAGE),
        ([BAD_IMAGE, WAITED, LOST], LOST),
        ([WAITED], WAITED),
    ],
    ids=["a lost worker", "an error of the user's", "both", "neither"],
)
def test_a_worker_that_only_waited_is_not_the_cause(failures: list[Exception], expected: Exception) -> None:
    assert cause(WorkerGroupError("failed", dict(enumerate(failures)))) is expected


def test_without_a_workers_failure_the_groups_is_the_cause() -> None:
    error = WorkerGroupError("failed", {})
    assert cause(error) is error


class Kept:
    """The checkpoints of the first of two workers, of which the other one first reads an older state."""

    def __init__(self, *steps: int | None):
        self.steps, self.saved = list(steps), list[int]()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        step = self.steps.pop(0)
        return None if step is None else {"step": step}

    def due(self, step: int) -> bool:
        return True

    def save(self, state: dict[str, Any]) -> None:
        self.saved.append(state["step"])


class Two(Workers):
    """Two workers, the other of which reads these steps; -1 is no state."""

    others: list[int]

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        return torch.cat([part, torch.tensor([self.others.pop(0)])])


@pytest.mark.parametrize(
    ("mine", "others", "begins"),
    [([500], [500], 500), ([None], [-1], None), ([1000, 1000], [500, 1000], 1000), ([None, 500], [500, 500], 500)],
)
def test_all_workers_begin_at_the_same_step(mine: list[int | None], others: list[int], begins: int | None) -> None:
    workers = Two(0, 2)
    object.__setattr__(workers, "others", others)
    kept = Kept(*mine)
    state = SharedCheckpoints(kept, workers).load(torch.device("cpu"))
    assert (None if state is None else state["step"]) == begins
    assert kept.steps == []
    assert others == []


@pytest.mark.parametrize(("rank", "saved"), [(0, [20]), (1, [])])
def test_the_first_worker_writes_and_all_report(rank: int, saved: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[dict[str, int]] = []
    monkeypatch.setattr(ray.train, "report", reported.append)
    kept = Kept()
    SharedCheckpoints(kept, Workers(rank, 2)).save({"step": 20})
    assert kept.saved == saved
    assert reported == [{"step": 20, "saved_step": 20}]
