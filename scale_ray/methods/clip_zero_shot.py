"""`clip_zero_shot`: CLIP as it is; classes are told from their names (https://arxiv.org/abs/2103.00020, section 3.1).

Nothing is trained and no image is read but to be measured: a number depends on the target alone, and is the same for
every source and, with given weights, every seed.
"""

from collections.abc import Sequence

from torch import Tensor

from scale_ray.config import Precision, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.methods.base import Passes, Setting, StepOutput
from scale_ray.methods.clip import ClipMethod
from scale_ray.models.clip import ClipStudent, FrozenClip
from scale_ray.models.student import DomainRole


class ZeroShotStudent(ClipStudent):
    """Classes by the nearest of their prompts' features.

    Args:
        encoder, classes, precision: as in ClipStudent.
        ensemble: average the features of OpenAI's 80 prompts for ImageNet, instead of one: "a photo of a {class}."
    """

    class_features: Tensor

    def __init__(self, encoder: FrozenClip, classes: Sequence[str], precision: Precision, *, ensemble: bool):
        super().__init__(encoder, classes, precision)
        self.register_buffer("class_features", encoder.class_features(self.classes, ensemble=ensemble))

    def predict_with_features(self, images: Tensor, domain: DomainRole = "target") -> tuple[Tensor, Tensor]:
        with self.autocast(images.device):
            features = self.encoder(images).features
        return self.logits(features, self.class_features), features


class ClipZeroShot(ClipMethod):
    """No loss term, no step. Its whole cost is the measuring."""

    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, https://arxiv.org/abs/2103.00020"
    defaults = "the paper's: one prompt, \"a photo of a {class}.\"; its ensemble's 80 prompts are open_clip's copy"
    reads = frozenset({"prompt_ensemble"})
    learns = False

    def __init__(self, student: ZeroShotStudent, setting: Setting):
        super().__init__()
        self.student = student
        self.workers = setting.workers

    @classmethod
    def beside(cls, encoder: FrozenClip, setting: Setting) -> ZeroShotStudent:
        config = setting.config
        return ZeroShotStudent(
            encoder, setting.classes, config.optim.precision, ensemble=config.baseline.prompt_ensemble
        )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=0)

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        return False

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        return StepOutput({})
