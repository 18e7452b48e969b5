"""benchmarks/accuracy.py: what its rows say is what they train, and one command measures all of them and goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from studies import LIMIT
from tiny_images import make_images

from scale_ray.config import TrialConfig
from scale_ray.methods.base import MethodContext
from scale_ray.models import build_encoder

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "benchmarks"))

import accuracy  # noqa: E402


@pytest.mark.parametrize(
    ("probe", "layers"),
    [("probe_scaled", ["DomainBatchNorm", "Linear"]),
     ("probe_bottleneck", ["Linear", "DomainBatchNorm", "ReLU", "Linear"]),
     ("probe_without_batch_norm", ["Linear", "Identity", "ReLU", "Linear", "Identity", "ReLU", "Linear"])],
)  # fmt: skip
def test_a_probe_has_the_layers_of_its_name(probe: str, layers: list[str]) -> None:
    config = TrialConfig().replace({"model.encoder": "frozen", "model.backbone": "resnet18"})
    network = accuracy.PROBES[probe].build_student(MethodContext(config, num_classes=3, steps_per_epoch=1))
    assert [type(layer).__name__ for layer in [*network.bottleneck, *network.classifier]] == layers
    logits, features = network.predict_with_features(torch.randn(4, 512))
    assert logits.shape == (4, 3)
    assert features.shape == (4, network.feature_dim)


def test_pseudo_labels_are_counted_by_what_they_are() -> None:
    images, labels = np.array([0, 1, 2, 3, 3]), np.array([0, 0, 1, 1, 1])
    kept = np.array([True, True, True, False, True])
    target = SimpleNamespace(known_labels=np.array([0, 1, 2, 2]), classes=("a", "b", "c"))
    found = accuracy._quality([(images[:2], labels[:2], kept[:2]), (images[2:], labels[2:], kept[2:])], target)
    assert found == {
        "kept": 80.0,
        "right": 25.0,  # image 0 of 0, 1, 2 and 3
        "right of the rest": 0.0,
        "classes mostly wrong": 1.0,  # b; a is right once in two
        "classes never kept": 1.0,
    }


def test_the_images_of_a_class_are_limited_for_each_class() -> None:
    domain = accuracy.Domain("x", np.arange(10)[:, None], np.array([0] * 7 + [1] * 3), ("a", "b"), (), "")
    few = accuracy._first_of_each_class(domain, 4, seed=0)
    assert np.bincount(few.labels).tolist() == [4, 3]
    assert (domain.labels[few.images[:, 0]] == few.labels).all()
    assert (accuracy._first_of_each_class(domain, 4, seed=1).images != few.images).any()


@pytest.mark.slow
def test_one_command_measures_every_row_and_goes_on(tmp_path: Path) -> None:
    make_images(tmp_path / "images", ["plain", "inverted"], [6, 6, 6])
    for old, new in (("plain", "drawing"), ("inverted", "photo")):
        (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    weights = tmp_path / "lenet.pth"
    torch.save(build_encoder("lenet", "none").state_dict(), weights)
    script = tmp_path / "benchmarks"  # results go beside the script
    script.mkdir()
    for name in ("accuracy.py", "results.py"):
        (script / name).write_text((REPOSITORY / "benchmarks" / name).read_text())
    fields = ["data.image_size=16", "data.resize=16", "data.holdout=0.25", "model.backbone=lenet", "optim.batch_size=8"]
    line = [sys.executable, str(script / "accuracy.py"), "--emoji", str(tmp_path / "images"), "--mobilenet"]
    line += [str(weights), "--seeds", "1", "--steps", "30", "--store", str(tmp_path / "store")]
    line += [part for field in fields for part in ("--set", field)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SCALE_RAY_CACHE": str(tmp_path / "cache")}
    written = script / "results" / "accuracy.json"

    def run() -> dict[str, list[dict[str, str]]]:
        subprocess.run(line, check=True, env=environment, timeout=LIMIT, capture_output=True)
        return json.loads(written.read_text())["tables"]

    tables = run()
    assert [*tables] == [*accuracy.QUESTIONS, "Pseudo-labels by quarter of the training"]
    assert {name: len(rows) for name, rows in tables.items() if name in accuracy.QUESTIONS} == {
        name: len(rows) for name, rows in accuracy.QUESTIONS.items()
    }
    measured = tmp_path / "store" / "measured"
    before = {path: path.stat().st_mtime_ns for path in measured.iterdir()}
    assert run() == tables
    assert {path: path.stat().st_mtime_ns for path in measured.iterdir()} == before
