"""The parts of a trial's config, but for the losses: data, views, model, optimiser and workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scale_ray.config.problems import suggest

# Steps, images or units that no training has; larger numbers are mistakes.
MOST = 2**31 - 1
WIDEST = 65_536

# More CPUs or workers of one trial than any cluster has; larger numbers are mistakes.
MOST_OF_A_TRIAL = 10_000

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Introduced:
    """Marks a field that was added after the first release: `margin: Annotated[float, Introduced(0.3)] = 0.3`.

    Attributes:
        value: what a config without the field stands for: the field's default when it was added. The field enters a
            trial's id only where it differs from this value, so that ids of stored records stay (see `identity`).
    """

    value: Any


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        """Name the nearest known key, which pydantic's own message does not."""
        if isinstance(values, Mapping):
            fields = cls.model_fields
            for key in values:
                if key not in fields:
                    known = ", ".join(fields)
                    hint = suggest(str(key), fields)
                    raise ValueError(f"unknown key {key!r} in {cls.__name__}: {hint}known keys: {known}")
        return values

    @field_validator("*")
    @classmethod
    def _drop_sign_of_zero(cls, value: Any) -> Any:
        """Replace -0.0 by 0.0: two spellings of one number must not be two identities."""
        return 0.0 if isinstance(value, float) and value == 0 else value

    def hashable(self) -> tuple[Any, ...]:
        """The values of all fields in their order: equal for equal parts, and made faster than their JSON."""
        return tuple([_hashable(value) for value in vars(self).values()])


class Items(tuple[tuple[Any, Any], ...]):
    """The items of a dict, in its place."""


def _hashable(value: Any) -> Any:
    if isinstance(value, Part):
        return value.hashable()
    return Items(value.items()) if isinstance(value, dict) else value


class DataConfig(Part):
    """Which images a trial trains on and is measured on."""

    benchmark: str = "office_home"
    source: str = "Art"
    target: str = "Clipart"
    image_size: int = Field(224, ge=8, le=1024, description="side in pixels of what the network sees")
    resize: int = Field(256, ge=8, le=2048, description="side in pixels to which every image is decoded, before crops")
    fit: Annotated[Literal["squeeze", "crop"], Introduced("squeeze")] = Field(
        "squeeze",
        description="how images become squares: both sides are resized, or the shorter one and the middle kept",
    )
    holdout: float = Field(0.1, gt=0, lt=1, description="stratified share of the source kept for source_val_accuracy")
    class_balance: Literal["off", "source", "both"] = "source"
    gamma: float = Field(0.5, ge=0, le=2, description="sampling weight is (class frequency) ** -gamma")
    corrupt: Literal["error", "skip"] = Field("error", description="what an unreadable image does to a trial")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == self.target:
            raise ValueError(f"source and target are both {self.source!r}: a domain pair needs two domains")
        if self.resize < self.image_size:
            raise ValueError(f"resize={self.resize} is smaller than image_size={self.image_size}: raise data.resize")
        return self


class ViewsConfig(Part):
    """The random views (augmentations) of an image; every image draws its own parameters."""

    crop_scale: tuple[float, float] = Field((0.5, 1.0), description="share of the image's area that a crop keeps")
    flip: bool = True
    strong: str = Field("randaugment", description="a name in STRONG_VIEWS, applied on top of the weak view")
    source: Annotated[Literal["weak", "alternating"], Introduced("weak")] = Field(
        "weak", description="views of the source: weak, or weak and strong by turns, one step each"
    )
    randaugment_operations: int = Field(2, ge=0, le=14)
    randaugment_magnitude: int = Field(10, ge=0, le=30)

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        low, high = scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale={scale} must satisfy 0 < low <= high <= 1")
        return scale


# Fields of ModelConfig that only a frozen encoder reads.
_READ_WHERE_FROZEN = ("frozen_views", "bottleneck_dim")


class ModelConfig(Part):
    """Encoder, heads and how BatchNorm treats the two domains (docs/method.md, section 1)."""

    backbone: str = Field("resnet50", description="a name in BACKBONES, or of timm as in 'timm:resnet50.a1_in1k'")
    weights: str = Field("imagenet", description="'none', 'imagenet', of a CLIP 'openai', or the path of a state dict")
    encoder: Literal["trained", "frozen"] = Field(
        "trained", description="frozen: features are computed once, and a bottleneck with both heads is trained on them"
    )
    frozen_views: int = Field(
        4, ge=1, le=64, description="encoder=frozen: number of weak views, and of strong views, kept of every image"
    )
    bottleneck_dim: int = Field(
        256, ge=1, le=WIDEST, description="encoder=frozen: width of the trained layer below both heads"
    )
    head: Annotated[Literal["mlp", "linear"], Introduced("mlp")] = Field(
        "mlp",
        description="mlp: hidden layers before the last Linear; linear: it alone, on the encoder's features, for "
        "trainings that read no target",
    )
    hidden_dim: int = Field(1024, ge=1, le=WIDEST)
    projection_dim: int = Field(128, ge=1, le=WIDEST)
    contrast_level: Literal["pooled", "spatial"] = "pooled"
    batch_norm: Literal["separate", "joint", "domain", "frozen"] = Field(
        "domain",
        description="domain: one student forward pass for each domain, and predictions use the running statistics of "
        "their own domain; separate: as domain, but with running statistics of both; joint: one forward pass for both; "
        "frozen: the running statistics of `weights`, never updated",
    )
    target_statistics: Annotated[Literal["running", "whole"], Introduced("running")] = Field(
        "running",
        description="batch_norm=domain: predictions on the target use running statistics, or those of all its images, "
        "which every evaluation takes anew",
    )
    teacher_momentum: float = Field(0.99, ge=0, lt=1, description="alpha: theta' <- a theta' + (1 - a) theta")

    @property
    def label(self) -> str:
        """The backbone as tables write it: `resnet50`, or `resnet50 (frozen)` to tell it from fine-tuning."""
        return self.backbone if self.encoder == "trained" else f"{self.backbone} ({self.encoder})"

    @model_validator(mode="after")
    def _check_encoder(self) -> Self:
        if self.encoder == "trained":
            for name in _READ_WHERE_FROZEN:
                usual = type(self).model_fields[name].default
                if getattr(self, name) != usual:
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, which only encoder='frozen' reads: leave it at {usual}"
                    )
            return self
        if self.weights == "none":
            raise ValueError(
                "encoder='frozen' with weights='none' gives features of a random network: name its weights"
            )
        if self.contrast_level != "pooled":
            raise ValueError("encoder='frozen' keeps pooled features: set contrast_level to 'pooled'")
        if self.batch_norm == "frozen":
            raise ValueError(
                "encoder='frozen' leaves no BatchNorm whose statistics could be frozen: set batch_norm to 'domain'"
            )
        return self

    @model_validator(mode="after")
    def _check_statistics(self) -> Self:
        if self.target_statistics != "running" and self.batch_norm != "domain":
            raise ValueError(
                f"target_statistics={self.target_statistics!r} needs statistics of each domain, and batch_norm is "
                f"{self.batch_norm!r}: set it to 'domain'"
            )
        return self


class OptimConfig(Part):
    """The optimiser, its schedule and its length (docs/method.md, section 6)."""

    steps: int = Field(20_000, ge=1, le=MOST)
    warmup_steps: int = Field(
        1_000, ge=0, le=MOST, description="Lw: loss terms that wait, such as dist and reg, act where step > Lw"
    )
    batch_size: int = Field(32, ge=2, le=1_000_000, description="images per domain and step")
    learning_rate: float = Field(0.003, gt=0)
    encoder_factor: float = Field(0.1, ge=0, description="the encoder's learning rate is learning_rate times this")
    layer_decay: Annotated[float, Introduced(1.0)] = Field(
        1.0,
        gt=0,
        le=1,
        description="an encoder of timm: every layer learns at this times the rate of the next one",
    )
    optimiser: Annotated[Literal["sgd", "adam"], Introduced("sgd")] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="of adam, its first beta; the second is 0.999")
    nesterov: bool = Field(True, description="of sgd alone")
    weight_decay: float = Field(1e-3, ge=0)
    schedule: Literal["inverse", "cosine", "constant"] = Field("inverse", description="inverse: (1 + 4e-4 t) ** -0.75")
    precision: Precision = Field(
        "float32",
        description="bf16: forward passes of training and evaluation run under autocast; losses and statistics do not",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.optimiser == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0: set optim.nesterov to false")
        return self


class ParallelConfig(Part):
    """How many processes train one trial together, on the global batch of `optim.batch_size`."""

    workers: int = Field(
        1,
        ge=1,
        le=MOST_OF_A_TRIAL,
        description="number of processes that the global batch is split over; BatchNorm sees each part alone unless it "
        "is synchronised or frozen",
    )
    sync_batch_norm: bool = Field(False, description="BatchNorm sees the whole batch (SyncBatchNorm); on GPUs only")
