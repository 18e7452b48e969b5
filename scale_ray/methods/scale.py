"""`scale`: self-training with a mean teacher and contrast with class distributions.

SCALE, Algorithm 1; docs/method.md, section 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scale_ray.config import DEFAULTS, ConfigError, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import LOSSES, StepTensors
from scale_ray.losses.term import LossTerm, Need
from scale_ray.methods.base import Method, MethodContext, Passes, StepOutput
from scale_ray.models import Alignment, ClassStatistics, Network, Outputs, ProjectionBank, Teacher
from scale_ray.models.backbones import feature_dim
from scale_ray.models.neighbours import TargetBank
from scale_ray.models.network import image_level, per_location
from scale_ray.models.prototypes import PrototypeHead
from scale_ray.models.student import DomainRole
from scale_ray.models.thresholds import AdaptiveThresholds, relative_threshold

# Fields that only strong views read: those of a target batch, and with views.source=alternating the source's.
_STRONG_VIEWS = ("views.strong", "views.randaugment_operations", "views.randaugment_magnitude")


# Needs that read a target batch, each by a pass of the student.
_VIEWS: frozenset[Need] = frozenset({"target", "weak_target"})


@dataclass(frozen=True)
class _TeacherLabels:
    probabilities: Tensor  # (B, K)
    confidence: Tensor  # (B,)
    labels: Tensor  # (B,)


class Scale(Method):
    """Trains with any combination of the terms in LOSSES.

    Only what an active term needs is computed. With ce alone there is no teacher and no target batch; without a
    contrast term there are no class statistics and no projections; no target batch is read before a term needs one.

    Args:
        student: the network that is optimised; the teacher starts as its copy.
        context: config, sizes and workers.

    Attributes:
        teacher: None if no term needs it.
        statistics: class statistics of the teacher's projections; None if no term needs them.
        bank: the teacher's last projections; None unless `dist` is on with contrast=bank.
        prototypes: label the target; None unless losses.pseudo_labels is prototype or average.
        neighbours: label the target; None unless losses.pseudo_labels is neighbours.
        alignment: of the pseudo-labels; None where losses.alignment is off.
        thresholds: of the pseudo-labels by class; None unless losses.thresholding is flex.
    """

    paper = "Li et al., SCALE: Semantic Contrast-Aware Learning for Domain-Adaptive Image Classification"
    defaults = "weights and threshold from the paper; docs/method.md says what was chosen where the paper is silent"

    student: Network

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        config = context.config
        self._config = config
        self._steps_per_epoch = context.steps_per_epoch
        self._terms: dict[str, LossTerm] = {name: LOSSES[name] for name in config.losses.terms}
        needs = _needs(config.losses.terms)
        balanced = config.data.class_balance == "both" and bool(needs & _VIEWS)
        taught = balanced or bool(needs & {"pseudo_labels", "statistics"})
        self.teacher = Teacher(student, config.model.teacher_momentum) if taught else None
        self.statistics = _statistics(config, context.num_classes) if "statistics" in needs else None
        self.bank = _bank(config, context.num_classes) if "dist" in self._terms else None
        self.prototypes = _prototypes(config, context.num_classes)
        self.neighbours = _neighbours(context)
        # Also without pseudo-labels: cells that need it may go on from this one's warm-up.
        alignment = config.losses.alignment
        self.thresholds = AdaptiveThresholds(context.num_classes) if config.losses.thresholding == "flex" else None
        self.alignment = Alignment(context.num_classes, alignment) if alignment != "off" else None

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        needs = _needs(config.losses.terms)
        labelled = cls.reads_target(config) and ("pseudo_labels" in needs or config.data.class_balance == "both")
        labels = 0 if not labelled else 2 if config.losses.pseudo_labels == "average" else 1
        like_predicted = config.model.batch_norm == "domain" and "target" in needs
        return Passes(student=1 + len(needs & _VIEWS), teacher=labels + ("statistics" in needs) + like_predicted)

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        waiting = [name for name in config.losses.terms if LOSSES[name].after_warmup]
        if waiting and config.optim.warmup_steps >= config.optim.steps - 1:
            raise ConfigError(
                f"loss terms {'+'.join(waiting)} never act: they act where step > optim.warmup_steps="
                f"{config.optim.warmup_steps}, but the last step is {config.optim.steps - 1}: lower optim.warmup_steps"
            )

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        return bool(_needs(config.losses.terms) & _VIEWS)

    @classmethod
    def reads_variant(cls, config: TrialConfig, path: str) -> bool:
        """Beside the source's views: what is about pseudo-labels, where there are any."""
        balanced = config.data.class_balance == "both" and cls.reads_target(config)
        labelled = balanced or "pseudo_labels" in _needs(config.losses.terms)
        return super().reads_variant(config, path) or (path.startswith("losses.") and labelled)

    @classmethod
    def warm_up(cls, config: TrialConfig) -> TrialConfig:
        """`scale` with the terms that do not wait; fields that are not read during the warm-up have their defaults.

        The settings of loss terms among these fields follow from `LossTerm.reads`.
        """
        terms = {name: weight for name, weight in config.losses.terms.items() if not LOSSES[name].after_warmup}
        settings = frozenset[str]().union(*(term.reads for term in LOSSES.values()))
        unread = [f"losses.{name}" for name in settings - _read_in_warm_up(config, terms)]
        changes: dict[str, object] = {"method": "scale", "losses.terms": terms}
        if not _needs(terms) & _VIEWS:
            # Stored features depend on all fields of the views.
            if config.model.encoder == "trained" and config.views.source == "weak":
                unread += _STRONG_VIEWS
            if config.data.class_balance == "both":  # there are no pseudo-labels to balance the target by
                changes["data.class_balance"] = "source"
        return config.replace(changes | {path: DEFAULTS.value(path) for path in unread})

    def surveys(self, step: int) -> bool:
        """Where prototypes label the target: before the first labels and, if the encoder learns, in each epoch.

        Not earlier: a warm-up that reads no target serves every target.
        """
        if self.prototypes is None or not self._labels_target(step):
            return False
        first = step == 0 or not self._labels_target(step - 1)
        return first or (self._config.model.encoder == "trained" and step % self._steps_per_epoch == 0)

    def encode(self, images: Tensor, domain: DomainRole) -> Tensor:
        """Features of the teacher's encoder with running statistics: no image's depend on another's."""
        assert self.teacher is not None
        self.teacher.eval()
        features = self.teacher.module.encoded(images, domain)
        self.teacher.label_mode()
        return features

    def survey(self, source: Tensor | None, labels: Tensor | None, target: Tensor) -> None:
        assert self.prototypes is not None
        assert source is not None
        assert labels is not None
        self.prototypes.fit(source, labels, target, torch.Generator().manual_seed(self._config.seed))

    def needs_target(self, step: int) -> bool:
        return bool(_needs(self._active(step)) & _VIEWS)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        """Compute the losses of one step. Also updates the class statistics and the bank, from step 0 on."""
        self._update_statistics(step, source)
        active = self._active(step)
        outputs, of_views = self._student_outputs(source, target, _needs(active))
        locations = len(outputs.logits) // len(source.labels)
        tensors = StepTensors(
            source_logits=outputs.logits,
            source_labels=per_location(source.labels, locations),
            source_features=outputs.features,
            locations=locations,
            **self._class_distributions(),
        )
        if target is None:
            return StepOutput(self._losses(active, tensors))
        if "target" in of_views:
            strong = of_views["target"]
            tensors = replace(tensors, target_logits=strong.logits, target_features=strong.features)
        if "weak_target" in of_views:
            tensors = replace(tensors, weak_target_logits=of_views["weak_target"].logits)
        if not self._needs_labels(active):
            return StepOutput(self._losses(active, tensors))
        teacher = self._pseudo_label(target, source.labels)
        tensors = replace(
            tensors,
            pseudo_labels=per_location(teacher.labels, locations),
            confidence=per_location(teacher.confidence, locations),
            teacher_probabilities=per_location(teacher.probabilities, locations),
        )
        thresholds = self._thresholds_of(step, teacher.probabilities, outputs.logits)
        if thresholds is not None:
            tensors = replace(tensors, thresholds=per_location(thresholds, locations))
        kept = teacher.confidence > (self._config.losses.threshold if thresholds is None else thresholds)
        return StepOutput(self._losses(active, tensors), teacher.labels, kept)

    def after_update(self) -> None:
        if self.teacher is not None:
            self.teacher.update_parameters(self.student)

    def _losses(self, active: dict[str, LossTerm], tensors: StepTensors) -> dict[str, Tensor]:
        return {name: term.compute(tensors, self._config.losses) for name, term in active.items()}

    def _active(self, step: int) -> dict[str, LossTerm]:
        after_warmup = step > self._config.optim.warmup_steps
        return {name: term for name, term in self._terms.items() if after_warmup or not term.after_warmup}

    def _needs_labels(self, active: dict[str, LossTerm]) -> bool:
        balanced = self._config.data.class_balance == "both"
        return balanced or any("pseudo_labels" in term.needs for term in active.values())

    def _labels_target(self, step: int) -> bool:
        return self.needs_target(step) and self._needs_labels(self._active(step))

    @torch.no_grad()
    def _update_statistics(self, step: int, source: SourceBatch) -> None:
        """Merge the teacher's projections of the source batch into the class statistics and the bank."""
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
    def _pseudo_label(self, target: TargetBatch, source_labels: Tensor) -> _TeacherLabels:
        """Hard pseudo-labels from the weak view, one per image: probabilities are averaged over its locations."""
        assert self.teacher is not None
        found = []
        if self._config.losses.pseudo_labels != "prototype":
            outputs = self.gathered(self.teacher(target.weak, hidden=self.neighbours is not None))
            of_teacher = image_level(outputs.logits.softmax(dim=1), len(target.indices))
            found.append(
                self._of_neighbours(target, outputs, of_teacher) if self.neighbours is not None else of_teacher
            )
        if self.prototypes is not None:
            features = self.workers.gather(self.encode(target.weak, "target"))
            found.append(self.prototypes(features).softmax(dim=1))
        probabilities = torch.stack(found).mean(dim=0)
        if self.alignment is not None:
            probabilities = self.alignment(probabilities, source_labels)
        confidence, labels = probabilities.max(dim=1)
        return _TeacherLabels(probabilities, confidence, labels)

    def _of_neighbours(self, target: TargetBatch, outputs: Outputs, probabilities: Tensor) -> Tensor:
        """Store what the teacher says of the batch in the bank; return what the bank says of it, (B, K)."""
        assert self.neighbours is not None
        assert outputs.hidden is not None
        features = image_level(outputs.hidden, len(target.indices))
        self.neighbours.update(target.indices, features, probabilities)
        return self.neighbours.label(target.indices, features)

    def _thresholds_of(self, step: int, probabilities: Tensor, source_logits: Tensor) -> Tensor | None:
        """The threshold (B,) of each pseudo-label; None where all have the config's, as all do in the warm-up.

        A low threshold would keep the labels of heads that know nothing yet, and the training would confirm them.
        """
        following = None if self.thresholds is None else self.thresholds(probabilities)
        if step <= self._config.optim.warmup_steps:
            return None
        if following is not None:
            return following
        if self._config.losses.thresholding == "relative":
            return relative_threshold(self._config.losses.threshold, source_logits).expand(len(probabilities))
        return None

    def _student_outputs(
        self, source: SourceBatch, target: TargetBatch | None, needs: frozenset[Need]
    ) -> tuple[Outputs, dict[Need, Outputs]]:
        """Outputs for the source batch and, by need, for the views of the target batch, in one pass of the target."""
        project = "features" in needs
        if target is None:
            return self.gathered(self.student(source.images, project=project)), {}
        images: dict[Need, Tensor] = {"target": target.strong, "weak_target": target.weak}
        wanted = [need for need in images if need in needs]
        views = torch.cat([images[need] for need in wanted])
        like_predicted = target.weak if "target" in wanted else None
        of_source, of_target = self.student.forward_domains(
            source.images, views, like_predicted=like_predicted, project=project
        )
        parts = zip(
            *((None,) * len(wanted) if part is None else part.chunk(len(wanted)) for part in of_target), strict=True
        )
        return self.gathered(of_source), {
            need: self.gathered(Outputs(*part)) for need, part in zip(wanted, parts, strict=True)
        }

    def _class_distributions(self) -> dict[str, Tensor]:
        if self.statistics is None:
            return {}
        tensors = {
            "mean": self.statistics.mean,
            "covariance": self.statistics.covariance,
            "seen": self.statistics.seen,
        }
        return tensors if self.bank is None else tensors | {"bank": self.bank.features, "filled": self.bank.filled}


def _read_in_warm_up(config: TrialConfig, terms: Iterable[str]) -> frozenset[str]:
    """Names of the fields of LossesConfig that are read during the warm-up.

    Args:
        config: the trial.
        terms: the loss terms that act in its warm-up; the others wait.
    """
    own = {"terms", "covariance", "statistics_window", "bank_size", "alignment", "pseudo_labels", "thresholding"}
    if config.losses.contrast == "bank":  # the bank is filled from step 0 on
        own.add("contrast")
    if _needs(terms) & _VIEWS:  # a step says which pseudo-labels pass the threshold
        own.add("threshold")
    return frozenset(own).union(*(LOSSES[name].reads for name in terms))


def _needs(terms: Iterable[str]) -> frozenset[Need]:
    return frozenset().union(*(LOSSES[name].needs for name in terms))


def _prototypes(config: TrialConfig, num_classes: int) -> PrototypeHead | None:
    if config.losses.pseudo_labels not in ("prototype", "average"):
        return None
    return PrototypeHead(feature_dim(config.model.backbone, config.data.image_size), num_classes)


def _neighbours(context: MethodContext) -> TargetBank | None:
    if context.config.losses.pseudo_labels != "neighbours":
        return None
    return TargetBank(context.target_images, context.config.model.hidden_dim, context.num_classes)


def _statistics(config: TrialConfig, num_classes: int) -> ClassStatistics:
    # The statistics are those of the teacher's projections, so `ema` decays as the teacher does.
    decay = config.model.teacher_momentum if config.losses.statistics_window == "ema" else None
    return ClassStatistics(num_classes, config.model.projection_dim, config.losses.covariance, decay=decay)


def _bank(config: TrialConfig, num_classes: int) -> ProjectionBank | None:
    if config.losses.contrast != "bank":
        return None
    return ProjectionBank(num_classes, config.model.projection_dim, config.losses.bank_size)
