"""For every field of a trial another valid value."""

from typing import Any

from scale_ray.config import TrialConfig, TuningBudget

# Another valid value for every field.
CHANGES: dict[str, Any] = {
    "method": "source_only",
    "seed": 1,
    "data.benchmark": "image_folder",
    "data.source": "Product",
    "data.target": "Real_World",
    "data.image_size": 192,
    "data.resize": 300,
    "data.fit": "crop",
    "data.holdout": 0.2,
    "data.class_balance": "both",
    "data.gamma": 1.0,
    "data.corrupt": "skip",
    "views.crop_scale": (0.4, 1.0),
    "views.flip": False,
    "views.strong": "colour_affine",
    "views.source": "alternating",
    "views.randaugment_operations": 3,
    "views.randaugment_magnitude": 9,
    "model.backbone": "resnet18",
    "model.weights": "none",
    "model.encoder": "frozen",
    "model.frozen_views": 2,
    "model.bottleneck_dim": 64,
    "model.head": "linear",
    "model.hidden_dim": 512,
    "model.projection_dim": 64,
    "model.contrast_level": "spatial",
    "model.batch_norm": "joint",
    "model.target_statistics": "whole",
    "model.teacher_momentum": 0.999,
    "losses.terms": {"ce": 1.0, "ssl": 0.5},
    "losses.threshold": 0.9,
    "losses.thresholding": "flex",
    "losses.pseudo_labels": "average",
    "losses.alignment": "source",
    "losses.temperature": 0.2,
    "losses.consistency": "mse",
    "losses.contrast": "proto",
    "losses.bank_size": 50,
    "losses.covariance": "full",
    "losses.statistics_window": "epoch",
    "losses.reg_mean": "image",
    "losses.mcc_temperature": 2.0,
    "baseline.weight": 0.5,
    "baseline.transfer_from": "warm_up",
    "baseline.reversal_gamma": 5.0,
    "baseline.entropy_conditioning": True,
    "baseline.mcc_temperature": 2.0,
    "baseline.margin": 2.0,
    "baseline.sharpness_radius": 0.05,
    "baseline.source_share": 0.3,
    "baseline.dispersion_decay": 2.0,
    "baseline.prompt_ensemble": True,
    "baseline.shared_tokens": 8,
    "baseline.domain_tokens": 8,
    "baseline.class_tokens": True,
    "baseline.prompt_threshold": 0.6,
    "baseline.content_tokens": 2,
    "baseline.entropy_weight": 0.1,
    "baseline.alignment_weight": 0.1,
    "baseline.mapping_weight": 1.0,
    "optim.steps": 10_000,
    "optim.warmup_steps": 500,
    "optim.batch_size": 16,
    "optim.learning_rate": 0.01,
    "optim.encoder_factor": 1.0,
    "optim.layer_decay": 0.75,
    "optim.optimiser": "adam",
    "optim.momentum": 0.8,
    "optim.nesterov": False,
    "optim.weight_decay": 5e-4,
    "optim.schedule": "cosine",
    "optim.precision": "bf16",
    "parallel.workers": 2,
    "parallel.sync_batch_norm": True,
    "evaluate_every": 500,
    "tuning": TuningBudget(
        study="s",
        validator="im",
        sampler="tpe",
        fields=("losses.threshold",),
        settings=24,
        steps=900,
        losses="ce+ssl",
        pairs=("mnist>mnistm",),
        seeds=(0,),
    ),
}

# Alone it can change no number: one worker's BatchNorm sees the whole batch.
WITHOUT_EFFECT = "parallel.sync_batch_norm"


FROZEN = {"model.encoder": "frozen"}
FROZEN_FIELDS = ("model.frozen_views", "model.bottleneck_dim")


def base_of(path: str) -> TrialConfig:
    """A config in which the field can be changed: some are read beside others alone."""
    if path == "parallel.sync_batch_norm":
        return TrialConfig().replace({"model.batch_norm": "joint"})
    return TrialConfig().replace(FROZEN if path in FROZEN_FIELDS else {})
