"""A method that is one function: it gets labelled source images and target images, and returns a trained classifier.

For classical methods on features of a frozen encoder, or for a training loop of one's own. It takes no steps of the
package's loop: its student is evaluated once, as that of any method.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.config import TrialConfig
from scale_ray.data.batches import LabelledImages, SourceBatch, TargetBatch, UnlabelledImages
from scale_ray.data.feature_views import views_of
from scale_ray.methods.base import Method, MethodContext, Passes, StepOutput
from scale_ray.models.student import DomainRole, Student


@dataclass(frozen=True)
class TrainingData:
    """What a training function gets. It contains no target labels.

    Attributes:
        config: the trial; its seed has seeded torch's global generator.
        classes: names of the classes, in the order of the labels.
        source: labelled images to train on, without those that are held out for source_val.
        target: target images.
        device: where tensors should be.
    """

    config: TrialConfig
    classes: tuple[str, ...]
    source: LabelledImages
    target: UnlabelledImages
    device: torch.device

    def view(self, stored: np.ndarray) -> Tensor:
        """Evaluation view of stored images: (B, 3, S, S) float32; with a frozen encoder, their features (B, D)."""
        view = partial(views_of(self.config.model).evaluation, size=self.config.data.image_size)
        return view(torch.from_numpy(np.array(stored)).to(self.device))

    def source_inputs(self) -> tuple[Tensor, Tensor]:
        """Evaluation views of all source images, and their labels (N,) int64."""
        labels = torch.from_numpy(self.source.labels).to(self.device)
        return self.view(self.source.images[self.source.indices]), labels

    def target_inputs(self) -> Tensor:
        """Evaluation views of all target images."""
        return self.view(self.target.images)


# Gets the data, returns a module: evaluation views (B, …) -> logits (B, K). K is the number of classes.
TrainingFunction = Callable[[TrainingData], nn.Module]


class FittedStudent(Student):
    """The classifier that a training function has returned. Its features are its logits."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.encoder: nn.Module = nn.Identity()
        self.feature_dim = num_classes
        self.anchor = nn.Parameter(torch.zeros(()))  # says on which device the student is, whatever the classifier has

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        logits: Tensor = self.encoder(images)
        return logits, logits


class Fitted(Method):
    """The base of methods that take no steps: `fit` gets all images at once, before the only evaluation."""

    learns = False

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=0)

    @abstractmethod
    def fit(self, data: TrainingData) -> None:
        """Make the student what it shall be. Torch's global generator is seeded by the trial's seed."""

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        return StepOutput({})


class FunctionMethod(Fitted):
    """The base of all methods that are one function: see `training_function`."""

    defaults = "the function's own"

    function: ClassVar[TrainingFunction]
    student: FittedStudent

    @classmethod
    def build_student(cls, context: MethodContext) -> FittedStudent:
        return FittedStudent(context.num_classes)

    def fit(self, data: TrainingData) -> None:
        self.student.encoder = type(self).function(data).to(data.device)


def training_function(function: TrainingFunction, paper: str = "your own") -> type[Method]:
    """An entry of METHODS that trains by one function: `METHODS["mine"] = training_function(mine)`.

    Args:
        function: gets a TrainingData, returns a module that maps evaluation views (B, …) to logits (B, K).
        paper: whose method it is, for `--dry-run`.
    """
    return type("FunctionMethod", (FunctionMethod,), {"function": staticmethod(function), "paper": paper})
