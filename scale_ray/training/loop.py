"""The only training loop. It knows no Ray, no file layout but its checkpoint's, and no target label."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scale_ray.config import OptimConfig, TrialConfig
from scale_ray.data.batches import Batches
from scale_ray.methods import Method, StepOutput
from scale_ray.records import CurvePoint
from scale_ray.training import checkpoint
from scale_ray.training.evaluation import Evaluator
from scale_ray.training.schedules import learning_rate_factor
from scale_ray.training.seeding import step_seed


class TrainingDiverged(ValueError):
    """A loss is no longer a finite number."""


@dataclass
class Progress:
    """Whom to tell how far a training is.

    `on_step` is called after every step with the number of steps done, `on_point` with every new point of the curve.
    """

    on_step: Callable[[int], None] = lambda step: None
    on_point: Callable[[CurvePoint], None] = lambda point: None


@dataclass
class Trained:
    """What the loop gives back."""

    curve: list[CurvePoint]
    wall_seconds: float  # training and evaluation, over all sessions


@dataclass
class _Meter:
    """Sums since the last point of the curve, on the device: reading one would make every step wait."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, output: StepOutput) -> None:
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


def train(
    config: TrialConfig,
    method: Method,
    batches: Batches,
    evaluator: Evaluator,
    *,
    checkpoint_path: Path | None,
    checkpoint_every: int,
    progress: Progress,
) -> Trained:
    """Train `method.student` for config.optim.steps, from the checkpoint if there is one.

    Every step's randomness is a function of (seed, stream, step), so an interrupted and resumed training ends bit-equal
    to an uninterrupted one.

    Raises:
        TrainingDiverged: a mean loss between two points of the curve is not finite.
        CheckpointError: the checkpoint is damaged.
    """
    optimiser = _optimiser(method, config.optim)
    meter = _Meter()
    curve: list[CurvePoint] = []
    first, earlier_seconds = 0, 0.0
    began = time.monotonic()
    device = next(method.student.parameters()).device

    saved = checkpoint.load(checkpoint_path, device) if checkpoint_path else None
    if saved is not None:
        first, earlier_seconds = saved["step"], saved["wall_seconds"]
        method.load_state_dict(saved["method"])
        optimiser.load_state_dict(saved["optimiser"])
        batches.load_state(saved["batches"])
        meter = _Meter(saved["meter_sums"], saved["meter_counts"])
        curve = [CurvePoint(**point) for point in saved["curve"]]

    def seconds() -> float:
        return earlier_seconds + time.monotonic() - began

    def state(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "wall_seconds": seconds(),
            "method": method.state_dict(),
            "optimiser": optimiser.state_dict(),
            "batches": batches.state(),
            "meter_sums": meter.sums,
            "meter_counts": meter.counts,
            "curve": [point.model_dump() for point in curve],
        }

    for step in range(first, config.optim.steps):
        meter.add(_train_step(config, method, batches, optimiser, step))
        done = step + 1
        last = done == config.optim.steps
        if last or done % config.evaluate_every == 0:
            curve.append(_point(done, meter.take(), evaluator, method))
            progress.on_point(curve[-1])
        if checkpoint_path and not last and done % checkpoint_every == 0:
            checkpoint.save(checkpoint_path, state(done))
        progress.on_step(done)
    return Trained(curve, seconds())


def _train_step(
    config: TrialConfig, method: Method, batches: Batches, optimiser: torch.optim.Optimizer, step: int
) -> StepOutput:
    # Dropout and the like draw from the global generator: it too is a function of the step.
    torch.manual_seed(step_seed(config.seed, "forward", step))
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * learning_rate_factor(config.optim, step)
    source = batches.source(step)
    target = batches.target(step) if method.needs_target(step) else None
    output = method.step(step, source, target)
    total = torch.stack([config.losses.terms[name] * loss for name, loss in output.losses.items()]).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    optimiser.step()
    method.after_update()
    if target is not None and output.pseudo_labels is not None:
        batches.observe(target.indices, output.pseudo_labels)
    return output


def _point(step: int, means: dict[str, float], evaluator: Evaluator, method: Method) -> CurvePoint:
    kept = means.pop("kept", None)
    broken = [name for name, mean in means.items() if not math.isfinite(mean)]
    if broken:
        raise TrainingDiverged(
            f"loss {', '.join(broken)} is not finite before step {step}: lower optim.learning_rate or weights"
        )
    accuracies = evaluator.measure(method.student, method.teacher)
    return CurvePoint(
        step=step,
        target_accuracy=accuracies.target,
        teacher_accuracy=accuracies.teacher,
        source_val_accuracy=accuracies.source_val,
        losses=means,
        kept_fraction=kept,
    )


def _optimiser(method: Method, optim: OptimConfig) -> torch.optim.SGD:
    """SGD over the student; `base_lr` is what the schedule multiplies."""
    encoder = list(method.student.encoder.parameters())
    of_encoder = {id(parameter) for parameter in encoder}
    heads = [parameter for parameter in method.student.parameters() if id(parameter) not in of_encoder]
    rates = {"encoder": optim.learning_rate * optim.encoder_factor, "heads": optim.learning_rate}
    groups = [
        {"params": encoder, "lr": rates["encoder"], "base_lr": rates["encoder"]},
        {"params": heads, "lr": rates["heads"], "base_lr": rates["heads"]},
    ]
    return torch.optim.SGD(
        groups, momentum=optim.momentum, nesterov=optim.nesterov, weight_decay=optim.weight_decay, foreach=True
    )
