"""How a method is laid out and run changes no name in its state, and numbers by their last bits alone."""

import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import run_together
from opened import open_data

from scale_ray.config import Execution, TrialConfig
from scale_ray.training.setup import build_method, move_to_device
from scale_ray.training.trial import Training

CPU = torch.device("cpu")


@pytest.fixture
def slow_learner(tiny_config: TrialConfig) -> TrialConfig:
    """At the tiny trial's own rate a dozen steps blow last bits up to a percent."""
    return tiny_config.replace({"optim.learning_rate": 0.001})


def trained(config: TrialConfig, root: Path, execution: Execution) -> dict[str, Any]:
    source, targets = open_data(config, [config.data.target], root)
    training = Training(config, source, targets, CPU, execution)
    points = training.run().points
    return {"points": [asdict(point) for point in points], "state": dict(training.method.state_dict())}


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["state"].keys() == expected["state"].keys()
    for point, wanted in zip(found["points"], expected["points"], strict=True):
        assert point["losses"] == pytest.approx(wanted["losses"], rel=1e-3)
        # One of the 12 held-out images may turn.
        assert point["accuracies"]["source_val"] == pytest.approx(wanted["accuracies"]["source_val"], abs=9)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_layout_is_as_asked(tiny_config: TrialConfig, channels_last: bool) -> None:
    method = build_method(tiny_config, 3, 5)
    move_to_device(method, CPU, Execution(channels_last=channels_last))
    weight = method.student.encoder[1][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert weight.is_contiguous() != channels_last


def test_the_memory_layout_changes_last_bits_alone(slow_learner: TrialConfig, tiny_root: Path) -> None:
    usual = trained(slow_learner, tiny_root, Execution())
    assert_near(trained(slow_learner, tiny_root, Execution(channels_last=False)), usual)


@pytest.mark.slow
def test_a_compiled_training_is_the_same_but_for_last_bits(slow_learner: TrialConfig, tiny_root: Path) -> None:
    usual = trained(slow_learner, tiny_root, Execution())
    compiled = trained(slow_learner, tiny_root, Execution(compile=True))
    assert_near(compiled, usual)
    assert compiled["points"] != usual["points"]  # so something was compiled
    # A process trains many trials: what was compiled for one must not leave the next uncompiled.
    assert trained(slow_learner, tiny_root, Execution(compile=True))["points"] == compiled["points"]


@pytest.mark.slow
def test_two_workers_compile(slow_learner: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    # Frozen, for BatchNorm over a worker's four images blows last bits up again.
    config = slow_learner.replace({"parallel.workers": 2, "model.batch_norm": "frozen"})
    compiled = run_together(trained, tmp_path / "compiled", config, tiny_root, Execution(compile=True))
    usual = run_together(trained, tmp_path / "usual", config, tiny_root, Execution())
    assert_near(compiled[0], usual[0])
    assert compiled[0]["points"] == compiled[1]["points"] != usual[0]["points"]
    for name, value in compiled[0]["state"].items():
        assert torch.equal(value, compiled[1]["state"][name]), name


FREED_BY_ANOTHER_THREAD = """
import threading
import torch
from scale_ray.training.setup import configure_torch

def resident_mb():
    with open("/proc/self/status") as status:
        return int(status.read().partition("RssAnon:")[2].split()[0]) / 1000

def work():
    configure_torch(1)
    several = [torch.ones(2**16) for _ in range(1000)]  # 262 MB, in pieces that glibc does not map one by one
    kept.append(torch.ones(1))

kept = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = resident_mb()
configure_torch(1)
print(before - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked for it")
def test_a_training_returns_the_memory_that_others_have_freed() -> None:
    done = subprocess.run([sys.executable, "-c", FREED_BY_ANOTHER_THREAD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 200
