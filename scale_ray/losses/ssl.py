"""`ssl`: self-training of the student's strong view with the teacher's confident predictions on the weak view."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.config import LossesConfig
from scale_ray.losses.term import LossTerm, StepTensors, full_precision, given, threshold_of


@full_precision
def self_training(
    student_logits: Tensor, pseudo_labels: Tensor, confidence: Tensor, threshold: float | Tensor
) -> Tensor:
    """Cross-entropy with confident pseudo-labels (FixMatch, https://arxiv.org/abs/2001.07685, equation 4).

    The sum over the confident images is divided by the whole batch size N instead of their number, so that the loss
    grows with the share of confident images.

    Args:
        student_logits: (N, K) of the strong view.
        pseudo_labels: (N,) the teacher's most probable class on the weak view.
        confidence: (N,) the probability of that class; detached here.
        threshold: an image counts if confidence > threshold; one number, or (N,).

    Returns:
        Scalar: sum over the images that count, divided by N.

    Raises:
        ValueError: the shapes do not fit.

    Examples:
        >>> logits = torch.zeros(2, 4)
        >>> round(self_training(logits, torch.tensor([0, 1]), torch.tensor([0.9, 0.5]), 0.8).item(), 4)  # log(4) / 2
        0.6931
    """
    _check(student_logits, confidence)
    losses = F.cross_entropy(student_logits, pseudo_labels, reduction="none")
    return torch.where(confidence.detach() > threshold, losses, 0).sum() / len(student_logits)


@full_precision
def consistency(
    student_logits: Tensor, teacher_probabilities: Tensor, confidence: Tensor, threshold: float | Tensor
) -> Tensor:
    """Squared difference between the class probabilities of the two views (SCALE, section 4.3).

    Args:
        student_logits: (N, K) of the strong view.
        teacher_probabilities: (N, K) of the weak view; detached here.
        confidence: (N,) the teacher's highest probability; detached here.
        threshold: an image counts if confidence > threshold; one number, or (N,).

    Returns:
        Scalar: sum over the classes and over the images that count, divided by the whole batch size N.

    Raises:
        ValueError: the shapes do not fit.
    """
    _check(student_logits, confidence)
    if teacher_probabilities.shape != student_logits.shape:
        raise ValueError(
            f"shapes do not fit: teacher_probabilities {tuple(teacher_probabilities.shape)} must have the shape of "
            f"student_logits {tuple(student_logits.shape)}"
        )
    squared = (student_logits.softmax(dim=1) - teacher_probabilities.detach()).square().sum(dim=1)
    return torch.where(confidence.detach() > threshold, squared, 0).sum() / len(student_logits)


def _check(student_logits: Tensor, confidence: Tensor) -> None:
    # Without this check a confidence of shape (N, 1) would silently broadcast to (N, N).
    if student_logits.ndim != 2 or confidence.shape != student_logits.shape[:1]:
        raise ValueError(
            f"shapes do not fit: student_logits {tuple(student_logits.shape)} must be (N, K), "
            f"confidence {tuple(confidence.shape)} (N,)"
        )


def _compute(step: StepTensors, losses: LossesConfig) -> Tensor:
    logits, confidence = given(step.target_logits), given(step.confidence)
    if losses.consistency == "mse":
        return consistency(logits, given(step.teacher_probabilities), confidence, threshold_of(step, losses))
    return self_training(logits, given(step.pseudo_labels), confidence, threshold_of(step, losses))


TERM = LossTerm(
    _compute,
    needs=frozenset({"target", "pseudo_labels"}),
    after_warmup=False,
    reads=frozenset({"threshold", "consistency"}),
)
