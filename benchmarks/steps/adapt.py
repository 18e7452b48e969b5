"""The most similar method of pytorch-adapt: ATDOC, which trains on target pseudo-labels by nearest neighbours.

It has no teacher and no second view, so a step needs two forward and backward passes of the encoder. These are its
floor.
"""

import warnings
from importlib.util import find_spec

import torch
from torch import nn

from scale_ray.models import Network
from steps.case import CLASSES, IMAGES, Case, Contender, endless

INSTALL = "pip install pytorch-adapt 'setuptools<81'"  # a dependency of it imports pkg_resources


def installed() -> bool:
    return find_spec("pytorch_adapt") is not None


def models(case: Case) -> tuple[nn.Module, nn.Module, int]:
    """Encoder with pooling, and classifier head, as in our method."""
    student = case.method(case.config("ce")).student
    assert isinstance(student, Network)
    encoder = nn.Sequential(student.encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return encoder, student.classifier, student.feature_dim


def atdoc(case: Case, name: str, floor: str) -> Contender:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # caused by its old dependencies
        from pytorch_adapt.hooks import ATDOCHook, ClassifierHook
    encoder, classifier, feature_dim = models(case)
    optimisers = [
        torch.optim.SGD(part.parameters(), lr=0.003, momentum=0.9, nesterov=True, weight_decay=1e-3)
        for part in (encoder, classifier)
    ]
    hook = ClassifierHook(optimisers, post=[ATDOCHook(IMAGES, feature_dim, CLASSES)])
    batches = endless(case)

    def step() -> None:
        source, target = next(batches)
        inputs = {
            "G": encoder,
            "C": classifier,
            "src_imgs": source.images,
            "src_labels": source.labels,
            "target_imgs": target.strong,
            "target_sample_idx": target.indices.to(case.device),
        }
        hook(inputs)

    return Contender(name, step, floor)


def two_passes(case: Case, name: str) -> Contender:
    encoder, classifier, _ = models(case)
    parameters = [*encoder.parameters(), *classifier.parameters()]
    batches = endless(case)
    gradient = torch.randn(len(case.prepared.sources[0].images), CLASSES, generator=torch.Generator().manual_seed(0))
    gradient = gradient.to(case.device)

    def step() -> None:
        source, target = next(batches)
        for parameter in parameters:
            parameter.grad = None
        outputs = [classifier(encoder(images)) for images in (source.images, target.strong)]
        torch.autograd.backward(outputs, [gradient, gradient])

    return Contender(name, step)
