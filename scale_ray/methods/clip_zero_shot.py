"""`clip_zero_shot`: CLIP without training, which classifies by the names of the classes.

Radford et al. (https://arxiv.org/abs/2103.00020), section 3.1. Images are read for evaluation only. The accuracy
therefore depends on the target and the weights alone: it is the same for every source and every seed.
"""

from collections.abc import Sequence

from torch import Tensor

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.methods.base import MethodContext, Passes, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole


class ZeroShotStudent(ClipStudent):
    """Predicts the class whose prompt's features are most similar to those of the image.

    Args:
        encoder, classes, precision: as in ClipStudent.
        ensemble: average the features of OpenAI's 80 prompts for ImageNet, instead of using the one prompt
            "a photo of a {class}."
    """

    class_features: Tensor

    def __init__(self, encoder: FrozenClip, classes: Sequence[str], precision: Precision, *, ensemble: bool):
        super().__init__(encoder, classes, precision)
        self.register_buffer("class_features", encoder.class_features(self.classes, ensemble=ensemble))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        with self.autocast(images.device):
            features = self.encoder(images).features
        return self.logits(features, self.class_features), features

    def class_weights(self) -> Tensor:
        return self.class_features


class ClipZeroShot(ClipMethod):
    """No loss terms and no training steps; it costs an evaluation."""

    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, https://arxiv.org/abs/2103.00020"
    defaults = (
        'one prompt, "a photo of a {class}.", from the paper; the 80 prompts of the ensemble are those in open_clip'
    )
    reads = frozenset({"prompt_ensemble"})
    learns = False

    @classmethod
    def student_on(cls, encoder: FrozenClip, context: MethodContext) -> ZeroShotStudent:
        config = context.config
        return ZeroShotStudent(
            encoder, context.classes, config.optim.precision, ensemble=config.baseline.prompt_ensemble
        )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=0)

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        return False

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        return StepOutput({})
