"""`prototypes`: nearest class mean on the features of a pre-trained encoder, refined on the target's own clusters."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.feature_views import views_of
from scale_ray.methods.base import MethodContext, check_ce_alone, check_class_balance
from scale_ray.methods.function import Fitted, TrainingData
from scale_ray.models import build_encoder
from scale_ray.models.backbones import feature_dim
from scale_ray.models.prototypes import PrototypeHead
from scale_ray.models.student import DomainRole, Student

_BATCH = 256


class PrototypeStudent(Student):
    """Classifies by the nearest prototype of the target.

    Args:
        encoder: maps inputs to features (B, D) or maps (B, D, H, W); it is not trained.
        feature_dim: D.
        num_classes: K.
    """

    def __init__(self, encoder: nn.Module, feature_dim: int, num_classes: int):
        super().__init__()
        self.encoder, self.feature_dim = encoder, feature_dim
        self.heads_alone = isinstance(encoder, nn.Identity)
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)  # says on which device the student is
        self.head = PrototypeHead(feature_dim, num_classes)

    def pooled(self, inputs: Tensor) -> Tensor:
        """Features (B, D) of inputs, float32."""
        found = self.encoder(inputs)
        return (found.mean(dim=(2, 3)) if found.ndim == 4 else found).float()

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        features = self.pooled(images)
        return self.head(features, of_source=domain == "source"), features

    def class_weights(self) -> Tensor:
        return self.head.prototypes


class Prototypes(Fitted):
    """Nothing is trained; the cost is that of one evaluation and some eigenvalue problems.

    Source and target are centred at their means and whitened by the source's covariance within classes. The class means
    of the source are the first prototypes; rounds of assigning target images to the nearest one, and averaging, refine
    them. The shrinkage of the covariance is that which classifies held-out source images best, so no setting is left.
    With a frozen encoder both domains are fitted with the mean of an image's features over its evaluation view and its
    stored weak views; predictions are made, as those of any method, on the evaluation view.

    It says how far the features alone reach: it is far ahead of training where classes are many and their images few
    and compact, and behind it where the target's clusters are not its classes.
    """

    paper = "Liang et al., SHOT, ICML 2020, https://arxiv.org/abs/2002.08546: its pseudo-labels, on whitened features"
    defaults = "no setting of its own: the source chooses the shrinkage"

    student: PrototypeStudent

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)
        check_class_balance(config, pseudo_labels=False)
        if config.model.weights == "none":
            raise ConfigError(
                "method 'prototypes' compares features of a pre-trained encoder, and model.weights is 'none': "
                "name its weights"
            )

    @classmethod
    def build_student(cls, context: MethodContext) -> PrototypeStudent:
        model = context.config.model
        frozen = model.encoder == "frozen"
        size = context.config.data.image_size
        encoder = nn.Identity() if frozen else build_encoder(model.backbone, model.weights, size)
        encoder.requires_grad_(False)
        return PrototypeStudent(encoder, feature_dim(model.backbone, size), context.num_classes)

    @torch.no_grad()
    def fit(self, data: TrainingData) -> None:
        student = self.student.eval()
        source = _features(student, data, data.source.images[data.source.indices])
        target = _features(student, data, data.target.images)
        labels = torch.from_numpy(data.source.labels).to(source.device)
        student.head.fit(source, labels, target, torch.Generator().manual_seed(torch.initial_seed()))


def _features(student: PrototypeStudent, data: TrainingData, stored: np.ndarray) -> Tensor:
    """Pooled features (N, D) of stored images, float32."""
    view = partial(views_of(data.config.model).survey, size=data.config.data.image_size)
    batches = (torch.from_numpy(np.array(stored[start : start + _BATCH])) for start in range(0, len(stored), _BATCH))
    return torch.cat([student.pooled(view(batch.to(data.device))) for batch in batches])
