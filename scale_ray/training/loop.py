"""The only training loop. It knows no Ray, no file layout but its checkpoint's, and no target label."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from scale_ray.config import OptimConfig, TrialConfig
from scale_ray.data.batches import Batches
from scale_ray.methods import Method, StepOutput
from scale_ray.records import CurvePoint
from scale_ray.training.checkpoint import Checkpoints, State
from scale_ray.training.evaluation import Accuracies, Evaluator, TrainingDiverged
from scale_ray.training.schedules import learning_rate_factor
from scale_ray.training.seeding import step_seed


@dataclass(frozen=True)
class Point:
    """A training after `step` steps, measured on every target domain that it answers for."""

    step: int
    accuracies: Accuracies
    losses: dict[str, float]  # means since the last point
    kept_fraction: float | None
    kept_accuracy: float | None

    def on(self, target: str) -> CurvePoint:
        """The point of the curve of the cell with this target."""
        of_teacher = self.accuracies.teacher
        return CurvePoint(
            step=self.step,
            target_accuracy=self.accuracies.target[target],
            teacher_accuracy=None if of_teacher is None else of_teacher[target],
            source_val_accuracy=self.accuracies.source_val,
            losses=self.losses,
            kept_fraction=self.kept_fraction,
            kept_accuracy=self.kept_accuracy,
            validators=self.accuracies.validators.get(target, {}),  # a stage of an older version left none
        )


@dataclass
class Progress:
    """Whom to tell how far a training is.

    `on_step` is called after every step with the number of steps done, `on_point` with every new point of the curve.
    """

    on_step: Callable[[int], None] = lambda step: None
    on_point: Callable[[Point], None] = lambda point: None


@dataclass
class Trained:
    """What the loop gives back."""

    points: list[Point]  # since step 0, those of earlier sessions and stages too
    spent: list[tuple[float, int]]  # a stage: seconds of training and evaluation, and the cells that shared them
    state: State  # where another training may go on


@dataclass
class _Meter:
    """What happened since the last point of the curve, on the device: reading it would make every step wait."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    # Of every step with pseudo-labels: (B,) images, (B,) labels, (B,) which of them passed the threshold.
    labelled: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, output: StepOutput, images: Tensor | None) -> None:
        if images is not None and output.pseudo_labels is not None and output.kept is not None:
            self.labelled.append((images, output.pseudo_labels, output.kept))
        values = {name: loss.detach() for name, loss in output.losses.items()}
        if output.kept is not None:
            values["kept"] = output.kept.float().mean()
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Means by name; starts anew."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means

    def take_kept_labels(self) -> tuple[Tensor, Tensor]:
        """Images and labels of all pseudo-labels that passed the threshold, on the CPU; starts anew."""
        # A state that was loaded has all of them on the device of the training.
        labelled = [(images.cpu(), labels.cpu(), kept.cpu()) for images, labels, kept in self.labelled]
        passed = [(images[kept], labels[kept]) for images, labels, kept in labelled]
        self.labelled.clear()
        none = torch.empty(0, dtype=torch.long)
        return torch.cat([none, *(images for images, _ in passed)]), torch.cat([none, *(each for _, each in passed)])


def train(
    config: TrialConfig,
    method: Method,
    batches: Batches,
    evaluator: Evaluator,
    *,
    checkpoints: Checkpoints,
    progress: Progress,
    last: int | None = None,
    start: State | None = None,
    cells: int = 1,
) -> Trained:
    """Train `method` until `last` steps are done, from the checkpoint if there is one, else from `start`.

    Every step's randomness is a function of (seed, stream, step), so an interrupted and resumed training, and one that
    goes on from what another has begun, end bit-equal to an uninterrupted one. All of `method.workers` call it, and
    all hold the same state after every step: one's checkpoint is everyone's, for any number of workers.

    Args:
        last: where to stop; None is the end: config.optim.steps, or 0 where the method does not learn.
        start: the state of a training that was the same so far; None starts at step 0.
        cells: how many cells this training is for.

    Raises:
        TrainingDiverged: a mean loss between two points of the curve, or a prediction at one, is not finite.
        CheckpointError: the checkpoint is damaged.
    """
    optimiser = _optimiser(method, config.optim)
    meter = _Meter()
    points: list[Point] = []
    first, seconds = 0, 0.0
    spent: list[tuple[float, int]] = []
    began = time.monotonic()
    end = config.optim.steps if method.learns else 0
    last = end if last is None else min(last, end)

    resumed = checkpoints.load(next(method.student.parameters()).device)
    saved = resumed or start
    if saved is not None:
        first, spent = saved["step"], list(saved["spent"])
        seconds = spent.pop()[0] if resumed else 0.0  # of this stage, in earlier sessions
        method.load_state_dict(saved["method"])
        optimiser.load_state_dict(saved["optimiser"])
        batches.load_state(saved["batches"])
        meter = _Meter(dict(saved["meter_sums"]), dict(saved["meter_counts"]), list(saved["meter_labelled"]))
        points = [_read_point(point) for point in saved["points"]]

    shared = method.workers.wrap(method)

    def state(step: int) -> State:
        return {
            "step": step,
            "spent": [*spent, (seconds + time.monotonic() - began, cells)],
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "batches": batches.state(),
            "meter_sums": meter.sums,
            "meter_counts": meter.counts,
            "meter_labelled": meter.labelled,
            "points": [asdict(point) for point in points],
        }

    def measure(done: int) -> None:
        points.append(_point(done, meter, evaluator, method, whole=done == end))
        progress.on_point(points[-1])

    if end == 0 and not points:  # no step would change it: its first point is its last
        measure(0)
    for step in range(first, last):
        meter.add(*_train_step(config, method, shared, batches, optimiser, step))
        done = step + 1
        if done == end or done % config.evaluate_every == 0:
            measure(done)
        if done < last and checkpoints.due(done):
            checkpoints.save(state(done))
        progress.on_step(done)
    ended = state(max(first, last))
    return Trained(points, ended["spent"], ended)


def _train_step(
    config: TrialConfig,
    method: Method,
    shared: nn.Module,  # the method, with gradients averaged over its workers
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    step: int,
) -> tuple[StepOutput, Tensor | None]:
    """What the method gave, and which target images it saw."""
    # Dropout and the like draw from the global generator: it too is a function of the step. Workers have other images.
    stream = "forward" if method.workers.is_first else f"forward_{method.workers.rank}"
    torch.manual_seed(step_seed(config.seed, stream, step))
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * learning_rate_factor(config.optim, step)
    source = batches.source(step)
    target = batches.target(step) if method.needs_target(step) else None
    output: StepOutput = shared(step, source, target)
    weights = config.losses.terms | output.weights
    total = torch.stack([weights[name] * loss for name, loss in output.losses.items()]).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    optimiser.step()
    method.workers.average_(method.student.running_statistics())
    method.after_update()
    if target is not None and output.pseudo_labels is not None:
        batches.observe(target.indices, output.pseudo_labels)
    return output, None if target is None else target.indices


def _point(step: int, meter: _Meter, evaluator: Evaluator, method: Method, *, whole: bool) -> Point:
    """The curve's next point; `whole` keeps the confusion matrix, which only the last one needs."""
    means = meter.take()
    kept_fraction = means.pop("kept", None)
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise TrainingDiverged(
            f"loss {', '.join(broken)} is not finite before step {step}: lower optim.learning_rate or weights"
        )
    kept_accuracy = evaluator.accuracy_of_labels(*meter.take_kept_labels())
    accuracies = evaluator.measure(method.student, method.teacher)
    return Point(step, accuracies if whole else replace(accuracies, confusion={}), means, kept_fraction, kept_accuracy)


def _read_point(values: dict[str, Any]) -> Point:
    return Point(**values | {"accuracies": Accuracies(**values["accuracies"])})


def _optimiser(method: Method, optim: OptimConfig) -> torch.optim.SGD:
    """SGD over all that asks for a gradient; `base_lr` is what the schedule multiplies."""
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    encoder = [parameter for parameter in method.student.encoder.parameters() if parameter.requires_grad]
    of_encoder = {id(parameter) for parameter in encoder}
    heads = [parameter for parameter in trained if id(parameter) not in of_encoder]
    rates = {"encoder": optim.learning_rate * optim.encoder_factor, "heads": optim.learning_rate}
    groups = [
        {"params": encoder, "lr": rates["encoder"], "base_lr": rates["encoder"]},
        {"params": heads, "lr": rates["heads"], "base_lr": rates["heads"]},
    ]
    return torch.optim.SGD(
        groups, momentum=optim.momentum, nesterov=optim.nesterov, weight_decay=optim.weight_decay, foreach=True
    )
