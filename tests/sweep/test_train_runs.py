"""A training under Ray Train goes on from the store's checkpoint, whatever lies in Ray Train's own folder."""

from pathlib import Path

import pytest
from studies import STEPS, results, run

from scale_ray.config import Execution
from scale_ray.store import Store
from scale_ray.training.loop import Progress
from scale_ray.training.trial import run_trial

pytestmark = pytest.mark.slow

ONE_CELL = ("--losses", "ce+ssl", "--seeds", "1", "--set", "optim.warmup_steps=0")


class Interrupted(Exception):
    pass


def interrupt(done: int) -> None:
    if done == 50:
        raise Interrupted


@pytest.mark.parametrize(
    "snapshot", [b"", b'{"checkpoint_results": [', b"[" * 100_000], ids=["empty", "half", "nested"]
)
def test_it_goes_on_from_a_checkpoint_that_a_process_without_ray_train_left(
    snapshot: bytes, tiny_root: Path, tmp_path: Path
) -> None:
    undisturbed, store = tmp_path / "undisturbed", Store(tmp_path / "store", create=True)
    done = run(tiny_root, undisturbed, *ONE_CELL)
    assert done.returncode == 0, done.stderr
    (record,) = Store(undisturbed).records()
    with pytest.raises(Interrupted):
        run_trial(record.config, Execution(root=tiny_root, checkpoint_every=20), store, Progress(on_step=interrupt))
    assert store.checkpoint_keys() == [record.id]
    Path(store.record_location(record.id, "failed")).unlink(missing_ok=True)
    folder = tmp_path / "store" / ".ray_train" / record.id
    folder.mkdir(parents=True)
    (folder / "checkpoint_manager_snapshot.json").write_bytes(snapshot)
    found = run(tiny_root, tmp_path / "store", *ONE_CELL, "--ray-train", "always")
    assert found.returncode == 0, found.stdout + found.stderr
    assert results(tmp_path / "store") == results(undisturbed)
    assert [each.provenance.runner for each in store.records()] == ["ray train"]
    # The points of the curve before the checkpoint are not made again.
    assert f"step 40 of {STEPS}" in done.stdout
    assert f"step 40 of {STEPS}" not in found.stdout
    assert f"step 80 of {STEPS}" in found.stdout
    assert not folder.exists()
    assert store.checkpoint_keys() == []
