"""The training loop of all methods. It depends on neither Ray nor a file layout, and it sees no target labels."""

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
from scale_ray.models.timm_encoders import TimmEncoder
from scale_ray.records import CurvePoint
from scale_ray.training.checkpoint import Checkpoints, State
from scale_ray.training.evaluation import Accuracies, Evaluator
from scale_ray.training.failures import TrainingDiverged
from scale_ray.training.schedules import learning_rate_factor
from scale_ray.training.seeding import seed_global_generators, step_seed


@dataclass(frozen=True)
class Point:
    """A point of the curve: a training after `step` steps, evaluated on all its target domains.

    Attributes:
        step: number of steps done.
        accuracies: accuracies and scores.
        losses: loss term -> mean since the previous point, before its weight.
        kept_fraction: share of the pseudo-labels since the previous point that passed the threshold; None if there is
            no threshold.
        kept_accuracy: percent of these that are correct; None if there are none, or no labels to judge them by.
        kept_balance: how evenly these spread over the classes, in percent: their entropy by that of all classes alike.
    """

    step: int
    accuracies: Accuracies
    losses: dict[str, float]
    kept_fraction: float | None
    kept_accuracy: float | None
    kept_balance: float | None = None

    def on(self, target: str) -> CurvePoint:
        """This point in the curve of the cell with the given target."""
        of_teacher = self.accuracies.teacher
        return CurvePoint(
            step=self.step,
            target_accuracy=self.accuracies.target[target],
            teacher_accuracy=None if of_teacher is None else of_teacher[target],
            source_val_accuracy=self.accuracies.source_val,
            losses=self.losses,
            kept_fraction=self.kept_fraction,
            kept_accuracy=self.kept_accuracy,
            kept_balance=self.kept_balance,
            agreement=self.accuracies.agreement.get(target),
            validators=self.accuracies.validators.get(target, {}),  # states of older versions have none
        )


@dataclass
class Progress:
    """Callbacks that report the progress of a training.

    Attributes:
        on_step: called after every step with the number of steps done.
        on_point: called with every new point of the curve.
        on_life: called as the images are opened, after every step and after every batch of an evaluation.
        on_rest: called before work that may take any time without a sign of life.
    """

    on_step: Callable[[int], None] = lambda step: None
    on_point: Callable[[Point], None] = lambda point: None
    on_life: Callable[[], None] = lambda: None
    on_rest: Callable[[], None] = lambda: None


@dataclass
class Trained:
    """The result of the loop.

    Attributes:
        points: the curve since step 0, including earlier sessions and stages.
        spent: for each stage, the seconds of training and evaluation, the number of cells that shared them, and those
            of evaluation alone.
        state: the final state, from which another training may go on.
    """

    points: list[Point]
    spent: list[tuple[float, int, float]]
    state: State


@dataclass
class _Meter:
    """Losses and pseudo-labels since the last point of the curve.

    They stay on the device: reading them would make every step wait.

    Attributes:
        sums: name -> sum of the losses, or of the shares of kept pseudo-labels ("kept").
        counts: name -> number of steps in the sum.
        labelled: for every step with pseudo-labels, (B,) indices of target images, (B,) labels, and (B,) bool, which of
            them passed the threshold.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
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
        """Return the means by name, and clear the sums."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self.counts.clear()
        return means

    def take_kept_labels(self) -> tuple[Tensor, Tensor]:
        """Return image indices and labels of all kept pseudo-labels, on the CPU, and clear the list."""
        # `from_bytes` puts all tensors of a state on the device of the training, the indices included.
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
    seconds: float = 0.0,
) -> Trained:
    """Train `method` until `last` steps are done. It starts from the checkpoint if there is one, else from `start`.

    The random numbers of a step are a function of (seed, stream, step). A training that was interrupted and resumed, or
    that goes on from another training's state, therefore ends with the same bits as an uninterrupted one. All workers
    of the method call this function and have the same state after every step, so one checkpoint serves all of them, and
    any number of workers.

    Args:
        config: the trial.
        method: changed in place.
        batches: makes the batches of every step.
        evaluator: evaluates the student at every point of the curve.
        checkpoints: where unfinished states are saved and found.
        progress: called after every step and with every new point.
        last: number of steps after which to stop; None means the end, which is config.optim.steps, or 0 if the method
            does not learn.
        start: the state of a training that was the same up to that step; None starts at step 0.
        cells: number of cells that share this training.
        seconds: how long the method has taken before its first step.

    Raises:
        TrainingDiverged: a mean loss between two points of the curve, or a prediction at a point, is not finite.
    """
    optimiser = _optimiser(method, config.optim)
    meter = _Meter()
    points: list[Point] = []
    first, evaluating = 0, 0.0
    spent: list[tuple[float, int, float]] = []
    began = time.monotonic()
    end = config.optim.steps if method.learns else 0
    last = end if last is None else min(last, end)

    resumed = checkpoints.load(next(method.student.parameters()).device)
    saved = resumed or start
    if saved is not None:
        first, spent = saved["step"], list(saved["spent"])
        if resumed:  # this stage in earlier sessions
            earlier, _, evaluating = spent.pop()
            seconds += earlier
        method.load_state_dict(saved["method"])
        optimiser.load_state_dict(saved["optimiser"])
        _count_on_the_host(optimiser)
        batches.load_state(saved["batches"])
        meter = _Meter(dict(saved["meter_sums"]), dict(saved["meter_counts"]), list(saved["meter_labelled"]))
        points = [_read_point(point) for point in saved["points"]]

    wrapped = method.workers.wrap(method)

    def state(step: int) -> State:
        return {
            "step": step,
            "spent": [*spent, (seconds + time.monotonic() - began, cells, evaluating)],
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "batches": batches.state(),
            "meter_sums": meter.sums,
            "meter_counts": meter.counts,
            "meter_labelled": meter.labelled,
            "points": [asdict(point) for point in points],
        }

    def measure(done: int) -> None:
        nonlocal evaluating
        start = time.monotonic()
        points.append(_point(done, meter, evaluator, method, progress.on_life, whole=done == end))
        evaluating += time.monotonic() - start
        progress.on_point(points[-1])

    if end == 0 and not points:  # the method does not learn, so its only point is at step 0
        measure(0)
    for step in range(first, last):
        meter.add(*_train_step(config, method, wrapped, batches, optimiser, step, progress.on_life))
        done = step + 1
        if done == end or done % config.evaluate_every == 0:
            measure(done)
        if done < last and checkpoints.due(done):
            checkpoints.save(state(done))
        progress.on_step(done)
        progress.on_life()
    ended = state(max(first, last))
    return Trained(points, ended["spent"], ended)


def seconds_a_step(
    config: TrialConfig, method: Method, batches: Batches, least_seconds: float, least_steps: int
) -> float:
    """What a step after the warm-up takes: the mean over several, after a first one that is not counted.

    `method` is changed in place and is of no further use.
    """
    optimiser, first = _optimiser(method, config.optim), min(config.optim.warmup_steps + 1, config.optim.steps - 1)
    wrapped = method.workers.wrap(method)
    _train_step(config, method, wrapped, batches, optimiser, first)
    began, done = time.monotonic(), 0
    while done < least_steps or time.monotonic() - began < least_seconds:
        _train_step(config, method, wrapped, batches, optimiser, first)
        done += 1
    return (time.monotonic() - began) / done


def _train_step(
    config: TrialConfig,
    method: Method,
    wrapped: nn.Module,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    step: int,
    on_life: Callable[[], None] = lambda: None,
) -> tuple[StepOutput, Tensor | None]:
    """Do one step; return the method's output and the indices (B,) of its target images, None if it read none.

    `wrapped` is the method, wrapped so that a backward pass averages the gradients over the workers.
    """
    # Dropout draws from the global generator, which is therefore seeded by step. Workers have different images, so
    # each has a stream of its own.
    stream = "forward" if method.workers.is_first else f"forward_{method.workers.rank}"
    seed_global_generators(step_seed(config.seed, stream, step), next(method.parameters()).device)
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * learning_rate_factor(config.optim, step)
    if method.surveys(step):
        with torch.no_grad():
            with_source = method.needs_source(step)
            method.survey(*batches.survey(method.encode, with_source=with_source, on_life=on_life))
    source = batches.source(step) if method.needs_source(step) else None
    target = batches.target(step) if method.needs_target(step) else None
    output: StepOutput = wrapped(step, source, target)
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


def _point(
    step: int, meter: _Meter, evaluator: Evaluator, method: Method, on_life: Callable[[], None], *, whole: bool
) -> Point:
    """Make the next point of the curve.

    With `whole` it has the confusion matrices and the scores that only the last one needs.
    """
    means = meter.take()
    kept_fraction = means.pop("kept", None)
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise TrainingDiverged(
            f"loss {', '.join(broken)} is not finite before step {step}: lower optim.learning_rate or the loss weights"
        )
    indices, labels = meter.take_kept_labels()
    kept_accuracy = evaluator.accuracy_of_labels(indices, labels)
    accuracies = evaluator.measure(method.student, method.teacher, on_life, last=whole)
    (classes,) = {len(counts) for counts in accuracies.predicted.values()}
    return Point(
        step,
        accuracies if whole else replace(accuracies, confusion={}, predicted={}),
        means,
        kept_fraction,
        kept_accuracy,
        balance(labels, classes),
    )


def balance(labels: Tensor, num_classes: int) -> float | None:
    """How evenly labels (N,) spread over K classes: their entropy in percent of log K; None without labels."""
    if len(labels) == 0:
        return None
    shares = torch.bincount(labels, minlength=num_classes).double() / len(labels)
    return 100 * float(torch.special.entr(shares).sum()) / math.log(num_classes)


def _read_point(values: dict[str, Any]) -> Point:
    return Point(**values | {"accuracies": Accuracies(**values["accuracies"])})


def _optimiser(method: Method, optim: OptimConfig) -> torch.optim.Optimizer:
    """Over all parameters that require a gradient; the schedule multiplies a group's `base_lr`."""
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    encoder = [parameter for parameter in method.student.encoder.parameters() if parameter.requires_grad]
    in_encoder = {id(parameter) for parameter in encoder}
    heads = [parameter for parameter in trained if id(parameter) not in in_encoder]
    rate = optim.learning_rate * optim.encoder_factor
    parts = [(encoder, rate)] if optim.layer_decay == 1 else _by_layer(method.student.encoder, rate, optim.layer_decay)
    groups = [{"params": part, "lr": rate, "base_lr": rate} for part, rate in [*parts, (heads, optim.learning_rate)]]
    if optim.optimiser == "adam":
        betas = (optim.momentum, 0.999)
        return torch.optim.Adam(groups, betas=betas, weight_decay=optim.weight_decay, foreach=True)
    return torch.optim.SGD(
        groups, momentum=optim.momentum, nesterov=optim.nesterov, weight_decay=optim.weight_decay, foreach=True
    )


def _by_layer(encoder: nn.Module, rate: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """The parameters of every layer of a timm encoder and their learning rate; the last layer learns at `rate`.

    Clark et al., ELECTRA, https://arxiv.org/abs/2003.10555; for images BEiT, https://arxiv.org/abs/2106.08254. BEiT's
    code also exempts biases and norms from weight decay, which stays `optim.weight_decay` here.
    """
    assert isinstance(encoder, TimmEncoder), "resolve refuses optim.layer_decay for any other encoder"
    layers = encoder.layers()
    members: dict[int, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            members.setdefault(layers[name], []).append(parameter)
    last = max(layers.values())
    return [(members[layer], rate * decay ** (last - layer)) for layer in sorted(members)]


def _count_on_the_host(optimiser: torch.optim.Optimizer) -> None:
    """Adam reads its count of steps at every step. On the device, where `from_bytes` puts it, the host would wait."""
    for state in optimiser.state.values():
        if "step" in state:
            state["step"] = state["step"].cpu()
