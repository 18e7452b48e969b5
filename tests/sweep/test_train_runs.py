"""What Ray Train has kept of a training: gone as a whole where a kill has damaged it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from scale_ray.store import Store
from scale_ray.sweep.train_driver import drop_damaged_run

SNAPSHOT = "checkpoint_manager_snapshot.json"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training with one checkpoint, as Ray Train leaves it."""
    folder = tmp_path / ".ray_train" / "key"
    (folder / "checkpoint_1").mkdir(parents=True)
    (folder / "checkpoint_1" / "state.pt").write_bytes(b"state")
    kept = {"checkpoint_dir_name": "checkpoint_1", "metrics": {"step": 20}}
    snapshot = {
        "ray_version": ray.__version__,
        "checkpoint_results": [kept],
        "checkpoint_report_indices": [0],
        "latest_checkpoint_result": kept,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": 1,
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    (folder / SNAPSHOT).write_text(json.dumps(snapshot))
    return folder


def test_a_whole_run_stays(run: Path, tmp_path: Path) -> None:
    drop_damaged_run("key", Store(tmp_path))
    drop_damaged_run("another", Store(tmp_path))
    assert (run / "checkpoint_1" / "state.pt").exists()


def cut(run: Path) -> None:
    whole = (run / SNAPSHOT).read_bytes()
    (run / SNAPSHOT).write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda run: (run / SNAPSHOT).write_bytes(b""),
        lambda run: (run / SNAPSHOT).write_bytes(b"\xff\xfe"),
        lambda run: (run / SNAPSHOT).write_text("[" * 100_000),
        lambda run: (run / SNAPSHOT).write_text("{}"),
        lambda run: (run / "checkpoint_1" / "state.pt").unlink(),
        # Ray Train would delete this folder after its next checkpoint.
        lambda run: (run / SNAPSHOT).write_text((run / SNAPSHOT).read_text().replace("checkpoint_1", "../../victim")),
    ],
    ids=["half", "empty", "no text", "nested", "without fields", "no state", "a name that leads elsewhere"],
)
def test_a_damaged_run_goes_as_a_whole_and_is_named(
    damage: Callable[[Path], None], run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(run)
    drop_damaged_run("key", Store(tmp_path))
    assert not run.exists()
    (message,) = caplog.messages
    assert str(run) in message
    assert "the training starts anew" in message
