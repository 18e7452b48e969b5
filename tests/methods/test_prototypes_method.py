"""`prototypes` on made-up features of a frozen encoder, whose target is the source turned and moved."""

import numpy as np
import pytest
import torch

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import LabelledImages, UnlabelledImages
from scale_ray.methods import METHODS, MethodContext, TrainingData
from scale_ray.methods.prototypes import Prototypes

CLASSES, IMAGES, WIDTH = 5, 200, 1280
VIEWS = 9


def rows(centres: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Features (N, 9, D) of images about the centres of their classes, positive as pooled activations are."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), VIEWS, WIDTH))
    return np.abs(centres[labels][:, None] + 0.6 * noise).astype(np.float16)


@pytest.fixture(scope="module")
def fitted() -> tuple[Prototypes, np.ndarray, np.ndarray, TrainingData]:
    generator = np.random.default_rng(0)
    centres = generator.uniform(0, 2, size=(CLASSES, WIDTH))
    labels = np.arange(IMAGES) % CLASSES
    source, target = rows(centres, labels, 1), rows(centres + 1, labels, 2)
    config = TrialConfig.parse(
        {"method": "prototypes", "losses": {"terms": "ce"}, "model": {"encoder": "frozen", "backbone": "mobilenet_v2"}}
    )
    context = MethodContext(config, CLASSES, 10)
    method = Prototypes(Prototypes.build_student(context), context)
    data = TrainingData(
        config,
        tuple("abcde"),
        LabelledImages(source, np.arange(IMAGES), labels),
        UnlabelledImages(target),
        torch.device("cpu"),
    )
    torch.manual_seed(0)
    method.fit(data)
    return method, source, target, data


def test_it_finds_the_classes_of_a_target_that_has_moved(fitted: tuple) -> None:
    method, source, target, _ = fitted
    labels = torch.arange(IMAGES) % CLASSES
    assert torch.equal(method.student.predict(torch.from_numpy(target[:, 0])).argmax(dim=1), labels)
    of_source, features = method.student.predict_with_features(torch.from_numpy(source[:, 0]), "source")
    assert torch.equal(of_source.argmax(dim=1), labels)
    assert features.shape == (IMAGES, WIDTH)


def test_the_same_seed_gives_the_same_bits(fitted: tuple) -> None:
    method, _, _, data = fitted
    context = MethodContext(data.config, CLASSES, 10)
    again = Prototypes(Prototypes.build_student(context), context)
    torch.manual_seed(0)
    again.fit(data)
    for name, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_random_encoder_is_refused() -> None:
    config = TrialConfig.parse({"method": "prototypes", "losses": {"terms": "ce"}, "model": {"weights": "none"}})
    with pytest.raises(ConfigError, match="method 'prototypes' compares features of a pre-trained encoder"):
        METHODS["prototypes"].check(config)
