"""Every method through `scale-ray compare` on a real local Ray: on one worker, and on two under Ray Train."""

import subprocess
import sys
from pathlib import Path

import pytest
from studies import SETTINGS, finish

from scale_ray.methods import METHODS
from scale_ray.methods.clip import ClipMethod
from scale_ray.report import load
from scale_ray.store import Store

pytestmark = pytest.mark.slow

# BatchNorm frozen, so that nothing depends on how a batch is split; at a rate where rounding does not grow. One method
# learns from masked images alone.
SHORT = {
    "model.batch_norm": "frozen",
    "views.strong": "masked",
    "optim.learning_rate": 1e-4,
    "optim.steps": 12,
    "evaluate_every": 4,
}

# A comparison's default names no method on CLIP; a small random one is enough here.
ON_CLIP = [f"{name}@clip_tiny=none" for name, method in METHODS.items() if issubclass(method, ClipMethod)]
COMPARED = [name for name, method in METHODS.items() if not issubclass(method, ClipMethod)]


def compare(root: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    short = [text for path, value in SHORT.items() for text in ("--set", f"{path}={value}")]
    arguments = ["--benchmark", "image_folder", "--root", str(root), "--pairs", "plain:inverted", "--seeds", "1"]
    arguments += ["--methods", ",".join([*COMPARED, *ON_CLIP])]
    arguments += ["--address", "local", "--store", str(store), *SETTINGS, *short, *more]
    return finish([sys.executable, "-m", "scale_ray.cli", "compare", *arguments])


def test_two_workers_under_ray_train_give_every_methods_curve(tiny_root: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for store, more in ((one, ("--report",)), (two, ("--workers-per-trial", "2", "--no-report"))):
        finished = compare(tiny_root, store, *more)
        assert finished.returncode == 0, finished.stderr
        assert ("scale (ce+ssl+dist+reg)" in finished.stdout) == ("--report" in more)
    assert set(load(two)["method"]) == METHODS.keys()
    together = {record.id: record for record in Store(two).records()}
    for alone in Store(one).records():
        found = together.pop(alone.id)
        assert found.provenance.workers == 2
        assert alone.result is not None
        assert found.result is not None
        for point, expected in zip(found.result.curve, alone.result.curve, strict=True):
            # Where features hardly differ, a discriminator's BatchNorm magnifies rounding. test_parallel.py
            # is exact, in float64.
            assert point.losses == pytest.approx(expected.losses, rel=5e-3, abs=1e-4)
    assert not together
