"""What the methods on a frozen CLIP share."""

from abc import abstractmethod
from typing import ClassVar

from scale_ray.config import ConfigError, TrialConfig, check_name
from scale_ray.methods.base import Method, Setting, check_ce_alone
from scale_ray.models.clip import CLIP_BACKBONES, ClipStudent, FrozenClip, check_clip


class ClipMethod(Method):
    """A method whose backbone is one of CLIP_BACKBONES, and whose student learns beside it."""

    teacher = None

    labels_target: ClassVar[bool] = False  # whether it makes pseudo-labels

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)
        if config.model.encoder == "frozen":
            raise ConfigError(
                f"method {config.method!r} has a frozen encoder anyhow, and forwards images: leave model.encoder at "
                "'trained' (beside frozen studies: in a run of its own, without --frozen, on the same store)"
            )
        if config.data.class_balance == "both" and not cls.labels_target:
            raise ConfigError(
                f"method {config.method!r} makes no pseudo-labels by which data.class_balance='both' could sample the "
                "target: write 'source'"
            )

    @classmethod
    def check_backbone(cls, config: TrialConfig) -> None:
        check_name(f"model.backbone of method {config.method!r}", config.model.backbone, CLIP_BACKBONES)
        check_clip(config.model.backbone, config.model.weights)

    @classmethod
    def build_student(cls, setting: Setting) -> ClipStudent:
        if len(setting.classes) != setting.num_classes:
            raise ValueError(f"{len(setting.classes)} names for {setting.num_classes} classes: prompts need them all")
        model = setting.config.model
        return cls.beside(FrozenClip(model.backbone, model.weights), setting)

    @classmethod
    @abstractmethod
    def beside(cls, encoder: FrozenClip, setting: Setting) -> ClipStudent:
        """The student of this method on that CLIP."""
