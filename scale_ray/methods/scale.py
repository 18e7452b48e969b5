"""`scale`: self-training with a mean teacher, and contrast with class distributions (SCALE, Algorithm 1; METHOD 2)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import LOSSES, StepTensors
from scale_ray.losses.term import LossTerm, Need
from scale_ray.methods.base import Method, Passes, Setting, StepOutput
from scale_ray.models import ClassStatistics, Network, Outputs, ProjectionBank, Teacher
from scale_ray.models.network import image_level, per_location

# Fields that nothing reads before the warm-up has ended, and those that nothing reads without a target batch.
_READ_AFTER_WARMUP = ("losses.temperature", "losses.contrast", "losses.reg_mean")
_READ_WITH_TARGET = (
    "losses.threshold",
    "losses.consistency",
    "views.strong",
    "views.randaugment_operations",
    "views.randaugment_magnitude",
)


@dataclass(frozen=True)
class _TeacherLabels:
    probabilities: Tensor  # (B, K)
    confidence: Tensor  # (B,)
    labels: Tensor  # (B,)


class Scale(Method):
    """Any combination of LOSSES. Terms that are off cost nothing: with ce alone there is no teacher and no target,
    without a contrast term there are no statistics and no projections, and no target before a term needs one.

    Args:
        student: optimised; its copy is the teacher.
        setting: config and sizes.
    """

    paper = "Li et al., SCALE: Semantic Contrast-Aware Learning for Domain-Adaptive Image Classification"
    defaults = "the paper's weights and threshold; docs/method.md where it leaves a gap"

    student: Network

    def __init__(self, student: Network, setting: Setting):
        super().__init__()
        config = setting.config
        self.student = student
        self.workers = setting.workers
        self._config = config
        self._steps_per_epoch = setting.steps_per_epoch
        self._terms: dict[str, LossTerm] = {name: LOSSES[name] for name in config.losses.terms}
        needs = _needs(config.losses.terms)
        self.teacher = Teacher(student, config.model.teacher_momentum) if needs else None
        self.statistics = _statistics(config, setting.num_classes) if "statistics" in needs else None
        self.bank = _bank(config, setting.num_classes) if "dist" in self._terms else None

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        needs = _needs(config.losses.terms)
        labels = cls.reads_target(config) and ("pseudo_labels" in needs or config.data.class_balance == "both")
        return Passes(student=1 + ("target" in needs), teacher=labels + ("statistics" in needs))

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        waiting = [name for name in config.losses.terms if LOSSES[name].after_warmup]
        if waiting and config.optim.warmup_steps >= config.optim.steps - 1:
            raise ConfigError(
                f"loss terms {'+'.join(waiting)} never act: they wait until step > optim.warmup_steps="
                f"{config.optim.warmup_steps}, and the last step is {config.optim.steps - 1}: lower optim.warmup_steps"
            )

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        return "target" in _needs(config.losses.terms)

    @classmethod
    def warm_up(cls, config: TrialConfig) -> TrialConfig:
        """`scale` with the terms that do not wait; every field that is not read so far has its default.

        A bank is filled from step 0, so contrast = bank has a warm-up of its own.
        """
        terms = {name: weight for name, weight in config.losses.terms.items() if not LOSSES[name].after_warmup}
        usual = TrialConfig()
        changes: dict[str, object] = {"method": "scale", "losses.terms": terms}
        changes |= {path: usual.value(path) for path in _READ_AFTER_WARMUP}
        if config.losses.contrast == "bank":
            del changes["losses.contrast"]
        if "target" not in _needs(terms):
            changes |= {path: usual.value(path) for path in _unread_without_target(config)}
            if config.data.class_balance == "both":  # without pseudo-labels there is only the source to balance
                changes["data.class_balance"] = "source"
        return config.replace(changes)

    def needs_target(self, step: int) -> bool:
        return any("target" in term.needs for term in self._active(step).values())

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        """Losses of one step. Also merges the source batch into the statistics, from step 0 on."""
        self._observe(step, source)
        active = self._active(step)
        project = any("features" in term.needs for term in active.values())
        outputs, target_outputs = self._student_outputs(source, target, project)
        locations = len(outputs.logits) // len(source.labels)
        tensors = StepTensors(
            source_logits=outputs.logits,
            source_labels=per_location(source.labels, locations),
            source_features=outputs.features,
            locations=locations,
            **self._class_distributions(),
        )
        if target is None or target_outputs is None:
            return StepOutput(self._losses(active, tensors))
        tensors = replace(tensors, target_logits=target_outputs.logits, target_features=target_outputs.features)
        if not self._needs_labels(active):
            return StepOutput(self._losses(active, tensors))
        labels = self._label(target)
        tensors = replace(
            tensors,
            pseudo_labels=per_location(labels.labels, locations),
            confidence=per_location(labels.confidence, locations),
            teacher_probabilities=per_location(labels.probabilities, locations),
        )
        kept = labels.confidence > self._config.losses.threshold
        return StepOutput(self._losses(active, tensors), labels.labels, kept)

    def after_update(self) -> None:
        if self.teacher is not None:
            self.teacher.update_parameters(self.student)

    def _losses(self, active: dict[str, LossTerm], tensors: StepTensors) -> dict[str, Tensor]:
        return {name: term.compute(tensors, self._config.losses) for name, term in active.items()}

    def _active(self, step: int) -> dict[str, LossTerm]:
        warm = step > self._config.optim.warmup_steps
        return {name: term for name, term in self._terms.items() if warm or not term.after_warmup}

    def _needs_labels(self, active: dict[str, LossTerm]) -> bool:
        balanced = self._config.data.class_balance == "both"
        return balanced or any("pseudo_labels" in term.needs for term in active.values())

    @torch.no_grad()
    def _observe(self, step: int, source: SourceBatch) -> None:
        """Merge the teacher's projections of the source batch into the class statistics, and keep them in the bank."""
        if self.statistics is None:
            return
        assert self.teacher is not None
        if self._config.losses.statistics_window == "epoch" and step % self._steps_per_epoch == 0:
            self.statistics.reset()
        features = self.workers.gather(self.teacher(source.images, project=True).features)
        labels = per_location(source.labels, len(features) // len(source.labels))
        self.statistics.update(features, labels)
        if self.bank is not None:
            self.bank.update(features, labels)

    @torch.no_grad()
    def _label(self, target: TargetBatch) -> _TeacherLabels:
        """Hard pseudo-labels of the weak view; every location of an image takes the image's."""
        assert self.teacher is not None
        logits = self.workers.gather(self.teacher(target.weak).logits)
        probabilities = image_level(logits.softmax(dim=1), len(target.indices))
        confidence, labels = probabilities.max(dim=1)
        return _TeacherLabels(probabilities, confidence, labels)

    def _student_outputs(
        self, source: SourceBatch, target: TargetBatch | None, project: bool
    ) -> tuple[Outputs, Outputs | None]:
        if target is None:
            return self.gathered(self.student(source.images, project=project)), None
        of_source, of_target = self.student.forward_domains(source.images, target.strong, project=project)
        return self.gathered(of_source), self.gathered(of_target)

    def _class_distributions(self) -> dict[str, Tensor]:
        if self.statistics is None:
            return {}
        found = {
            "mean": self.statistics.mean,
            "covariance": self.statistics.covariance,
            "seen": self.statistics.seen,
        }
        return found if self.bank is None else found | {"bank": self.bank.features, "filled": self.bank.filled}


def _unread_without_target(config: TrialConfig) -> list[str]:
    """The views of a frozen encoder's features were drawn together: those of the source are kept with the target's."""
    frozen = config.model.encoder == "frozen"
    return [path for path in _READ_WITH_TARGET if not (frozen and path.startswith("views."))]


def _needs(terms: Iterable[str]) -> frozenset[Need]:
    return frozenset().union(*(LOSSES[name].needs for name in terms))


def _statistics(config: TrialConfig, num_classes: int) -> ClassStatistics:
    # The window `ema` forgets at the teacher's own pace: its projections are what is counted.
    decay = config.model.teacher_momentum if config.losses.statistics_window == "ema" else None
    return ClassStatistics(num_classes, config.model.projection_dim, config.losses.covariance, decay=decay)


def _bank(config: TrialConfig, num_classes: int) -> ProjectionBank | None:
    if config.losses.contrast != "bank":
        return None
    return ProjectionBank(num_classes, config.model.projection_dim, config.losses.bank_size)
