"""Base class of the methods on a frozen CLIP."""

from abc import abstractmethod
from typing import ClassVar

from scale_ray.config import ConfigError, TrialConfig, check_name
from scale_ray.methods.base import Method, MethodContext, check_ce_alone, check_class_balance
from scale_ray.models.clip import CLIP_BACKBONES, ClipStudent, FrozenClip, check_clip


class ClipMethod(Method):
    """A method whose backbone is a frozen CLIP (CLIP_BACKBONES); its student adds what is learnt.

    Attributes:
        labels_target: whether the method makes pseudo-labels.
    """

    labels_target: ClassVar[bool] = False

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)
        if config.model.encoder == "frozen":
            raise ConfigError(
                f"method {config.method!r} cannot train on stored features, and its encoder is always frozen: leave "
                "model.encoder at 'trained' (to compare it with a frozen study, run it separately without --frozen on "
                "the same store)"
            )
        check_class_balance(config, pseudo_labels=cls.labels_target)

    @classmethod
    def check_backbone(cls, config: TrialConfig) -> None:
        check_name(f"model.backbone of method {config.method!r}", config.model.backbone, CLIP_BACKBONES)
        check_clip(config.model.backbone, config.model.weights)

    @classmethod
    def build_student(cls, context: MethodContext) -> ClipStudent:
        if len(context.classes) != context.num_classes:
            raise ValueError(
                f"{len(context.classes)} names for {context.num_classes} classes: prompts need the name of every class"
            )
        model = context.config.model
        return cls.student_on(FrozenClip(model.backbone, model.weights), context)

    @classmethod
    @abstractmethod
    def student_on(cls, encoder: FrozenClip, context: MethodContext) -> ClipStudent:
        """Build this method's student on the given CLIP."""
