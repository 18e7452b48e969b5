"""What all loss terms share: their inputs, the entry that registers them, and helpers for precision and checks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, ParamSpec, get_args

import torch
from torch import Tensor

from scale_ray.config import LossesConfig, check_name

P = ParamSpec("P")

Need = Literal["target", "weak_target", "pseudo_labels", "features", "statistics"]


@dataclass(frozen=True)
class StepTensors:
    """The tensors that loss terms compute from, for one training step.

    There are B source images, B target images, K classes, A projection dimensions and L locations per image (1 for
    pooled features). A row is an (image, location) pair; the locations of an image are adjacent. A field is None if no
    active term needs it. All tensors of the teacher, the class statistics and the bank are detached.
    """

    source_logits: Tensor  # (B * L, K)
    source_labels: Tensor  # (B * L,)
    locations: int = 1  # L
    source_features: Tensor | None = None  # (B * L, A), L2-normalised
    target_logits: Tensor | None = None  # (B * L, K), strong view
    weak_target_logits: Tensor | None = None  # (B * L, K), weak view
    target_features: Tensor | None = None  # (B * L, A), strong view
    pseudo_labels: Tensor | None = None  # (B * L,), teacher on the weak view
    confidence: Tensor | None = None  # (B * L,), the teacher's highest probability
    teacher_probabilities: Tensor | None = None  # (B * L, K)
    thresholds: Tensor | None = None  # (B * L,), of each pseudo-label; None where all have losses.threshold
    mean: Tensor | None = None  # (K, A)
    covariance: Tensor | None = None  # (K, A) or (K, A, A)
    seen: Tensor | None = None  # (K,) bool: classes that have statistics
    bank: Tensor | None = None  # (K, M, A): the teacher's last M projections of each class; contrast=bank alone
    filled: Tensor | None = None  # (K, M) bool: slots of the bank that hold a projection


@dataclass(frozen=True)
class LossTerm:
    """One entry of LOSSES.

    Args:
        compute: (step tensors, config) -> scalar, before the term's weight.
        needs: which tensors must be computed for it. `target`: the student's outputs for the strong views of a target
            batch; `weak_target`: its logits for their weak views, one more pass of the student; `pseudo_labels`: the
            teacher's outputs for that batch; `features`: the student's projections; `statistics`: class statistics of
            the teacher's source projections and, with contrast=bank, the last of them.
        after_warmup: whether the term waits: it then acts only where step > optim.warmup_steps.
        reads: names of the fields of LossesConfig that `compute` reads. Cells that differ only in fields which no
            active term reads during the warm-up share it.
    """

    compute: Callable[[StepTensors, LossesConfig], Tensor]
    needs: frozenset[Need]
    after_warmup: bool
    reads: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for need in self.needs:
            check_name("need of a loss term", need, get_args(Need))


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Decorator: compute a loss in float32, or in float64 if its inputs are, also under autocast.

    float16 and bfloat16 inputs are converted to float32. Half precision would lose small differences between
    similarities, which tau = 0.1 multiplies by 10 and the covariance term by 50.
    """

    @wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return loss(*(_widen(value) for value in args), **{key: _widen(value) for key, value in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def masked_mean(values: Tensor, kept: Tensor) -> Tensor:
    """Mean of the `values` (N,) for which `kept` (N,) is true; a scalar.

    If nothing is kept it is 0 and still differentiable. The host never waits for the device.
    """
    return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)


def check_classes(mean: Tensor, temperature: float, seen: Tensor | None) -> None:
    """Check the arguments that every comparison with class means has.

    Raises:
        ValueError: the temperature is not positive, `mean` is not (K, A), or `seen` is not (K,).
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if mean.ndim != 2 or (seen is not None and seen.shape != mean.shape[:1]):
        found = None if seen is None else tuple(seen.shape)
        raise ValueError(f"shapes do not fit: mean {tuple(mean.shape)} must be (K, A), seen {found} (K,) or None")


def given(tensor: Tensor | None) -> Tensor:
    """Return a tensor that the term's `needs` ask for. None is a programming error in the term, not a user's."""
    assert tensor is not None, "a loss term reads a tensor that its `needs` do not list"
    return tensor


def threshold_of(step: StepTensors, losses: LossesConfig) -> float | Tensor:
    """What the confidence of a pseudo-label must exceed: one number, or (B * L,)."""
    return losses.threshold if step.thresholds is None else step.thresholds
