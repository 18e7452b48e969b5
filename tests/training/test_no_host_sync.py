"""A training step never waits for the device: it reads no number back from it.

Tensors of the device `meta` have shapes and no numbers, so that whatever would have to read one raises an error:
`.item()`, a branch, boolean indexing. What a host reads of its own (parameters of views, indices) is on the CPU.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from scale_ray.config import Execution, TrialConfig
from scale_ray.data.batches import Batches, LabelledImages, UnlabelledImages
from scale_ray.methods import METHODS, Method
from scale_ray.methods.clip import ClipMethod
from scale_ray.methods.source_free import SourceFree
from scale_ray.models import Network
from scale_ray.training.loop import _Meter, _optimiser, _train_step
from scale_ray.training.seeding import generator
from scale_ray.training.setup import build_method, move_to_device

CLASSES, STEPS = 3, 3
ON_IMAGES = [name for name, method in METHODS.items() if method.learns and not issubclass(method, ClipMethod)]


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no device `meta`."""
    monkeypatch.setattr(Network, "_autocast", lambda self, images: nullcontext())


def train_without_numbers(config: TrialConfig) -> tuple[Method, _Meter]:
    """A few steps of the loop, past the warm-up, on a device whose numbers nobody can read."""
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 20, 20), dtype=np.uint8)
    source = LabelledImages(images, np.arange(12), np.arange(12) % CLASSES)
    meta = torch.device("meta")
    batches = Batches(config, source, UnlabelledImages(images), CLASSES, partial(generator, 0), meta)
    method = build_method(config, CLASSES, batches.steps_per_epoch, target_images=batches.target_images)
    move_to_device(method, meta, Execution())
    optimiser, meter = _optimiser(method, config.optim), _Meter()
    for step in range(STEPS):
        meter.add(*_train_step(config, method, method, batches, optimiser, step))
    return method, meter


@pytest.fixture
def config(tiny_config: TrialConfig) -> TrialConfig:
    """With RandAugment, of whose fourteen operations 32 images draw every one."""
    changes = {"data.resize": 20, "optim.batch_size": 32, "optim.warmup_steps": 0, "views.strong": "randaugment"}
    return tiny_config.replace(changes)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_no_method_waits(config: TrialConfig, name: str) -> None:
    terms = "ce+ssl+dist+reg" if name == "scale" else "ce"
    own = {"views.strong": "masked"} if name == "mic" else {}
    if issubclass(METHODS[name], SourceFree):
        own = {"baseline.source_share": 1 / config.optim.steps}
    method, meter = train_without_numbers(config.replace({"method": name, "losses.terms": terms, **own}))
    assert meter.counts["ce"] == sum(method.needs_source(step) for step in range(STEPS))
    assert all(value.is_meta for value in [*method.state_dict().values(), *meter.sums.values()])


@pytest.mark.parametrize(
    "changes",
    [
        {"losses.covariance": "full"},
        {"losses.contrast": "bank", "losses.bank_size": 2},
        {"losses.contrast": "proto", "losses.consistency": "mse"},
        {"losses.statistics_window": "ema"},
        {"losses.statistics_window": "epoch"},
        {"losses.reg_mean": "image", "model.contrast_level": "spatial"},
        {"losses.pseudo_labels": "neighbours"},
        {"model.batch_norm": "joint"},
        {"model.batch_norm": "frozen"},
        {"views.strong": "colour_affine", "data.class_balance": "off"},
    ],
    ids=str,
)
def test_no_way_of_scale_waits(config: TrialConfig, changes: Mapping[str, Any]) -> None:
    _, meter = train_without_numbers(config.replace(changes))
    assert meter.counts == {"ce": STEPS, "ssl": STEPS, "kept": STEPS, "dist": STEPS - 1, "reg": STEPS - 1}


def test_what_waits_is_found(config: TrialConfig) -> None:
    """Balancing the target by its pseudo-labels is the one thing that has to read them every step."""
    with pytest.raises(NotImplementedError, match="meta"):
        train_without_numbers(config.replace({"data.class_balance": "both"}))
