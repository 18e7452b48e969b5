"""The loss terms of a training objective, and the pure functions that compute them.

To add a term, write `losses/<term>.py` with a `TERM` and add one line to LOSSES. A setting of its own is one field of
`LossesConfig`, listed in the term's `reads`. The losses of the baseline methods are plain functions: they are not in
LOSSES, so a loss combination cannot name them.
"""

from scale_ray.losses import ce, confusion, dist, im, reg, ssl
from scale_ray.losses.adversarial import (
    discrimination,
    multilinear_map,
    randomised_multilinear_map,
    reversal_coefficient,
    reverse_gradient,
)
from scale_ray.losses.ce import cross_entropy
from scale_ray.losses.certainty import certainty_weights
from scale_ray.losses.confusion import class_confusion
from scale_ray.losses.dist import bank_contrast, distribution_contrast, prototype_contrast
from scale_ray.losses.im import information_maximisation
from scale_ray.losses.margin import margin_disparity
from scale_ray.losses.masked import weighted_self_training
from scale_ray.losses.mmd import multi_kernel_mmd
from scale_ray.losses.neighbourhood import attraction, dispersion
from scale_ray.losses.prompting import mapping_error, prediction_entropy, prompt_divergence
from scale_ray.losses.reg import prototype_uniformity
from scale_ray.losses.ssl import consistency, self_training
from scale_ray.losses.term import LossTerm, StepTensors
from scale_ray.registry import Registry

LOSSES: Registry[LossTerm] = Registry(
    {
        "ce": ce.TERM,
        "ssl": ssl.TERM,
        "dist": dist.TERM,
        "reg": reg.TERM,
        "mcc": confusion.TERM,
        "im": im.TERM,
    }
)

__all__ = [
    "LOSSES",
    "LossTerm",
    "StepTensors",
    "attraction",
    "bank_contrast",
    "certainty_weights",
    "class_confusion",
    "consistency",
    "cross_entropy",
    "discrimination",
    "dispersion",
    "distribution_contrast",
    "information_maximisation",
    "mapping_error",
    "margin_disparity",
    "multi_kernel_mmd",
    "multilinear_map",
    "prediction_entropy",
    "prompt_divergence",
    "prototype_contrast",
    "prototype_uniformity",
    "randomised_multilinear_map",
    "reversal_coefficient",
    "reverse_gradient",
    "self_training",
    "weighted_self_training",
]
