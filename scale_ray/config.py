"""The config of one trial: frozen and validated.

A `TrialConfig` holds only what can change a number; its hash is part of the trial's id (see `identity`). Where the data
lies, how many threads work and what Ray is asked for belong to `Execution` and `Resources`, which change no number.
"""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from scale_ray.errors import UserError
from scale_ray.urls import redacted

# Raise it whenever the same config on the same data would train to other numbers: old records are then stale.
RECIPE_VERSION = 2

# More CPUs or workers of one trial than any cluster has; larger numbers are mistakes.
_MOST_OF_A_TRIAL = 10_000

# Steps, images or units that no training has; larger numbers are mistakes.
_MOST = 2**31 - 1
_WIDEST = 65_536

# Characters of a wrong value that a message shows.
_MOST_SHOWN = 100

# The smallest part of a GPU that Ray counts.
_LEAST_GPU = 0.0001

# Values of model.weights that are no file's path.
NAMED_WEIGHTS = ("none", "imagenet", "openai")

Precision = Literal["float32", "bf16"]

# The order in which a combination of loss terms is written everywhere: ce+ssl+dist+reg. Other terms follow by name.
_TERM_ORDER = ("ce", "ssl", "dist", "reg")


class Variant(NamedTuple):
    """A field whose value gives a method a row of its own in tables, as CDAN+E beside CDAN."""

    term: str | None  # the loss term that reads the field; None: the method itself reads it
    written: Mapping[object, str]  # value -> suffix of the method's name; other values have no suffix


# By dotted path. Numeric fields are not variants: cells with different thresholds belong in different tables.
VARIANTS: dict[str, Variant] = {
    "views.source": Variant(None, {"alternating": " strong-source"}),
    "losses.contrast": Variant("dist", {"proto": " proto", "bank": " bank"}),
    "losses.pseudo_labels": Variant(
        None, {"prototype": " prototype", "neighbours": " neighbours", "average": " average"}
    ),
    "losses.thresholding": Variant(None, {"flex": " flex", "relative": " relative"}),
    "losses.alignment": Variant(None, {"uniform": " uniform-aligned", "source": " source-aligned"}),
    "baseline.entropy_conditioning": Variant(None, {True: "+E"}),
    "baseline.prompt_ensemble": Variant(None, {True: " ensemble"}),
    "baseline.class_tokens": Variant(None, {True: " csc"}),
}


class ConfigError(UserError):
    """A setting that cannot be used; the message names it and what to write instead."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'x'? "`, or an empty string where no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def _ordered_terms(terms: Iterable[str]) -> list[str]:
    return sorted(terms, key=lambda name: (_TERM_ORDER.index(name) if name in _TERM_ORDER else len(_TERM_ORDER), name))


def _write_term(name: str, weight: float) -> str:
    """`ssl`, `0.5*ssl`. The text never contains a plus sign, because that joins terms."""
    return name if weight == 1 else f"{weight:.12g}*{name}".replace("e+", "e")


def _read_term(text: str, combination: str) -> tuple[str, float]:
    weight, star, name = (part.strip() for part in text.rpartition("*"))
    try:
        number = float(weight) if star else 1.0
    except ValueError:
        name = ""
    if not name:
        raise ValueError(f"{combination!r} is not a loss combination: write terms and weights as in 'ce+ssl+0.5*dist'")
    return name, number


@dataclass(frozen=True)
class Introduced:
    """Marks a field that was added after the first release: `margin: Annotated[float, Introduced(0.3)] = 0.3`.

    Attributes:
        value: what a config without the field stands for: the field's default when it was added. The field enters a
            trial's id only where it differs from this value, so that ids of stored records stay (see `identity`).
    """

    value: Any


class _Part(BaseModel):
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


class DataConfig(_Part):
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


class ViewsConfig(_Part):
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


class ModelConfig(_Part):
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
        256, ge=1, le=_WIDEST, description="encoder=frozen: width of the trained layer below both heads"
    )
    hidden_dim: int = Field(1024, ge=1, le=_WIDEST)
    projection_dim: int = Field(128, ge=1, le=_WIDEST)
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


class LossesConfig(_Part):
    """The loss combination and its settings (docs/method.md, section 3)."""

    terms: dict[str, float] = Field(
        default_factory=lambda: {"ce": 1.0, "ssl": 1.0, "dist": 1.0, "reg": 1.0},
        description="name -> weight; also written 'ce+ssl+0.5*dist'. A weight of 0 switches the term off",
    )
    threshold: float = Field(0.8, ge=0, lt=1, description="a pseudo-label counts where confidence > threshold")
    thresholding: Annotated[Literal["fixed", "flex", "relative"], Introduced("fixed")] = Field(
        "fixed",
        description="fixed: `threshold`; flex: one for each class that follows the confidences, and `threshold` is not "
        "read; relative: `threshold` times the mean confidence on the source batch",
    )
    pseudo_labels: Annotated[Literal["teacher", "prototype", "neighbours", "average"], Introduced("teacher")] = Field(
        "teacher",
        description="who labels the target: the teacher, the nearest prototype of the encoder's features, the nearest "
        "target images by the teacher, or the mean of teacher's and prototype's probabilities",
    )
    alignment: Annotated[Literal["off", "uniform", "source"], Introduced("off")] = Field(
        "off",
        description="whether pseudo-labels are aligned: every class as often as the others, or as in source batches",
    )
    temperature: float = Field(0.1, gt=0, le=10, description="tau of dist and reg")
    consistency: Literal["cross_entropy", "mse"] = "cross_entropy"
    contrast: Literal["dist", "proto", "bank"] = "dist"
    bank_size: int = Field(
        200,
        ge=1,
        le=10_000,
        description="contrast=bank: number of projections kept for every class, the most recent ones",
    )
    covariance: Literal["diagonal", "full"] = "diagonal"
    statistics_window: Literal["cumulative", "epoch", "ema"] = Field(
        "cumulative", description="epoch: reset each epoch; ema: decays by model.teacher_momentum"
    )
    reg_mean: Literal["batch", "image"] = "batch"
    mcc_temperature: Annotated[float, Introduced(2.5)] = Field(
        2.5, gt=0, le=100, description="mcc: temperature of the predictions whose confusion is minimised"
    )

    @field_validator("terms", mode="before")
    @classmethod
    def _read_combination(cls, terms: Any) -> Any:
        if isinstance(terms, str):
            pairs = [_read_term(part.strip(), terms) for part in terms.split("+")]
            if len(dict(pairs)) != len(pairs):
                raise ValueError(f"{terms!r} names a loss term twice: write each once, as in 'ce+0.5*ssl'")
            return dict(pairs)
        return terms

    @field_validator("terms")
    @classmethod
    def _drop_switched_off(cls, terms: dict[str, float]) -> dict[str, float]:
        for name, weight in terms.items():
            if weight < 0:
                raise ValueError(f"weight of loss term {name!r} is {weight}: it must not be negative")
        kept = {name: weight for name, weight in terms.items() if weight > 0}
        if "ce" not in kept:
            raise ValueError(
                f"loss terms {'+'.join(kept) or '(none)'} lack 'ce', the only term that sees labels: add it"
            )
        return {name: kept[name] for name in _ordered_terms(kept)}


class BaselineConfig(_Part):
    """Settings of the methods that scale is compared with (docs/method.md, section 10).

    Each method reads some of them; its `reads` names which.
    """

    weight: float = Field(1.0, ge=0, description="weight of the transfer loss; ce has weight 1")
    transfer_from: Annotated[Literal["start", "warm_up"], Introduced("start")] = Field(
        "start",
        description="the transfer loss acts from step 0 on, or where step > optim.warmup_steps, with ce alone before",
    )
    reversal_gamma: float = Field(
        10.0, gt=0, description="the reversed gradient has the coefficient 2 / (1 + exp(-gamma p)) - 1, p from 0 to 1"
    )
    entropy_conditioning: bool = Field(False, description="cdan weights images by certainty: CDAN+E")
    mcc_temperature: float = Field(2.5, gt=0, le=100, description="temperature of the target predictions in mcc")
    margin: Annotated[float, Introduced(4.0)] = Field(4.0, gt=0, description="mdd: gamma, which weighs the source")
    sharpness_radius: Annotated[float, Introduced(0.02)] = Field(
        0.02, ge=0, description="sdat, mic: rho, how far the weights go up the task loss before its gradient is taken"
    )
    source_share: Annotated[float, Introduced(0.5)] = Field(
        0.5,
        gt=0,
        lt=1,
        description="shot, aad: share of the steps that train on the source, before those on the target",
    )
    dispersion_decay: Annotated[float, Introduced(5.0)] = Field(
        5.0, ge=0, description="aad: beta; the weight of the dispersion is (1 + 10 p) ** -beta, p from 0 to 1"
    )
    prompt_ensemble: bool = Field(False, description="clip_zero_shot averages OpenAI's 80 prompts instead of using one")
    shared_tokens: int = Field(16, ge=1, description="daprompt: context tokens shared by the prompts of both domains")
    domain_tokens: int = Field(16, ge=1, description="daprompt: further context tokens of each domain")
    class_tokens: Annotated[bool, Introduced(False)] = Field(
        False, description="daprompt: each class has shared_tokens of its own (class-specific contexts)"
    )
    prompt_threshold: float = Field(
        0.5, ge=0, lt=1, description="daprompt: a zero-shot label counts where confidence > prompt_threshold"
    )
    content_tokens: int = Field(4, ge=1, description="ad_clip: prompt tokens that describe the content of an image")
    entropy_weight: float = Field(0.01, ge=0, description="ad_clip: weight of the prediction entropy on the target")
    alignment_weight: float = Field(
        1.0, ge=0, description="ad_clip: weight of the divergence between the domains' prompts"
    )
    mapping_weight: float = Field(
        0.1, ge=0, description="ad_clip: weight of the error of mapping target style to source style"
    )


class OptimConfig(_Part):
    """The optimiser, its schedule and its length (docs/method.md, section 6)."""

    steps: int = Field(20_000, ge=1, le=_MOST)
    warmup_steps: int = Field(
        1_000, ge=0, le=_MOST, description="Lw: loss terms that wait, such as dist and reg, act where step > Lw"
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


class ParallelConfig(_Part):
    """How many processes train one trial together, on the global batch of `optim.batch_size`."""

    workers: int = Field(
        1,
        ge=1,
        le=_MOST_OF_A_TRIAL,
        description="number of processes that the global batch is split over; BatchNorm sees each part alone unless it "
        "is synchronised or frozen",
    )
    sync_batch_norm: bool = Field(False, description="BatchNorm sees the whole batch (SyncBatchNorm); on GPUs only")


class TuningBudget(_Part):
    """What was spent on finding a config's values, so that tables can show it beside an untuned config."""

    study: str = Field(description="name of the search")
    validator: str = Field(description="the validator that chose; oracle: target labels")
    sampler: str
    fields: tuple[str, ...] = Field(description="dotted paths of what was tuned")
    settings: int = Field(ge=1, description="how many were tried, including those that failed or were stopped early")
    steps: int = Field(ge=0, description="training steps of all settings together")
    losses: str = Field(description="the loss combination that was trained, as in ce+ssl")
    pairs: tuple[str, ...]
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        """In a table: `24 settings by im on mnist>mnistm (study tuning-digits)`."""
        by = "oracle (target labels)" if self.validator == "oracle" else self.validator
        return f"{self.settings} settings by {by} on {', '.join(self.pairs)} (study {self.study})"


class TrialConfig(_Part):
    """Everything that determines the numbers of one training. Any field is an axis, by its dotted path."""

    method: str = "scale"
    seed: int = Field(0, ge=0, lt=2**31)
    data: DataConfig = DataConfig()
    views: ViewsConfig = ViewsConfig()
    model: ModelConfig = ModelConfig()
    losses: LossesConfig = LossesConfig()
    baseline: BaselineConfig = BaselineConfig()
    optim: OptimConfig = OptimConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate_every: int = Field(
        1_000, ge=1, le=_MOST, description="steps between two evaluations; the last step is evaluated too"
    )
    tuning: TuningBudget | None = Field(None, description="what `scale-ray tune` spent, where it chose the values")

    @model_serializer(mode="wrap")
    def _leave_out_no_tuning(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `tuning` out of an untuned config, as in configs of before this field existed."""
        values: dict[str, Any] = write(self)
        return values if self.tuning is not None else {key: value for key, value in values.items() if key != "tuning"}

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        workers, batch = self.parallel.workers, self.optim.batch_size
        if self.parallel.sync_batch_norm and self.model.batch_norm == "domain":
            raise ValueError(
                "model.batch_norm='domain' keeps statistics that parallel.sync_batch_norm cannot synchronise: set that "
                "to false, or model.batch_norm to 'joint'"
            )
        if batch % workers:
            raise ValueError(
                f"optim.batch_size={batch} cannot be split evenly over parallel.workers={workers}: make it a multiple"
            )
        if batch == workers and not self.any_workers_alike:
            raise ValueError(
                f"optim.batch_size={batch} leaves each of parallel.workers={workers} one image, too few for BatchNorm: "
                "lower parallel.workers, or set model.batch_norm to 'frozen'"
            )
        return self

    @property
    def any_workers_alike(self) -> bool:
        """Whether any number of workers gives one worker's result, up to last bits: BatchNorm sees no partial batch."""
        return self.parallel.workers == 1 or self.parallel.sync_batch_norm or self.model.batch_norm == "frozen"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from nested values.

        Raises:
            ConfigError: one line per problem, each naming the field by its dotted path.
        """
        return _parsed(cls, values)

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """A copy with other values at dotted paths: `config.replace({"losses.threshold": 0.9})`.

        Raises:
            ConfigError: a path that is no field (with the nearest one that is), or a value out of range.
        """
        # Unchanged parts stay the same objects: the cells of a large study share most of their parts.
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        known = _field_paths(type(self))
        for path, value in changes.items():
            if path not in known:
                hint = suggest(path, known) or f"fields: {list(known)}"
                raise ConfigError(f"unknown field {path!r}: {hint}".rstrip())
            *parents, leaf = path.split(".")
            part = values
            for parent in parents:
                if isinstance(part[parent], BaseModel):
                    part[parent] = part[parent].model_dump()
                part = part[parent]
            part[leaf] = value
        return self.parse(values)

    def value(self, path: str) -> Any:
        """The value at a dotted path."""
        value: Any = self
        for name in path.split("."):
            value = getattr(value, name)
        return value

    @property
    def pair(self) -> str:
        """The domain pair as tables write it: `mnist>mnistm`."""
        return f"{self.data.source}>{self.data.target}"

    @property
    def combination(self) -> str:
        """The loss combination as tables write it: `ce+ssl+dist+reg`, with weights other than 1."""
        return "+".join(_write_term(name, weight) for name, weight in self.losses.terms.items())

    @property
    def approach(self) -> str:
        """The loss combination of scale and source_only, the variant of any other method: `ce+ssl`, `cdan+E`."""
        if self.method not in ("scale", "source_only"):
            return self.variant
        return self.combination if self.variant == self.method else f"{self.combination} ({self.variant})"

    @property
    def variant(self) -> str:
        """The method with the suffixes of its variants: `scale`, `scale bank`, `cdan+E`."""
        chosen = [
            variant.written.get(self.value(path), "")
            for path, variant in VARIANTS.items()
            if variant.term is None or variant.term in self.losses.terms
        ]
        return "".join([self.method, *chosen])

    def canonical_json(self) -> str:
        """The same text for equal configs: keys sorted, floats in shortest form, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


# What may lie in a store beside a record.
Beside = Literal["model", "predictions"]


class _Settings(BaseModel):
    """What a trial needs beside its config."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build it from values.

        Raises:
            ConfigError: one line per problem.
        """
        return _parsed(cls, values)


class Execution(_Settings):
    """Where and how a trial runs. Nothing here may change more than the last bits of a result, so no id contains it."""

    root: Path | None = Field(None, description="folder of an image benchmark: root/domain/class/image")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1'")
    threads: int = Field(
        1, ge=1, le=_MOST_OF_A_TRIAL, description="torch threads; a study sets the number of CPUs of a trial"
    )
    checkpoint_every: int = Field(500, ge=1, le=_MOST, description="steps between checkpoints")
    keep_model: bool = Field(
        False, description="store the trained model (without its projection head) beside the record"
    )
    keep_predictions: bool = Field(
        False,
        description="store the student's class probabilities of every target image beside the record, in float16: at "
        "most 2 bytes x images x classes",
    )
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    hang_after: float = Field(
        1800,
        ge=0,
        le=_MOST,
        description="seconds without a step, or without an image opened before the first one, after which a trial on "
        "Ray is ended and tried again; 0: never",
    )
    compile: bool = Field(False, description="torch.compile the encoders: minutes of warm-up, then faster steps")

    @property
    def beside(self) -> tuple[Beside, ...]:
        """What a trial leaves beside its record; one that lacks any of it is not done."""
        wanted: dict[Beside, bool] = {"model": self.keep_model, "predictions": self.keep_predictions}
        return tuple(kind for kind, keep in wanted.items() if keep)


class Resources(_Settings):
    """What one trial of a study asks Ray for, and where Ray is."""

    cpus: int = Field(1, ge=1, le=_MOST_OF_A_TRIAL, description="CPUs of one worker, and so its torch threads")
    gpus: float | None = Field(
        None,
        ge=0,
        le=_MOST_OF_A_TRIAL,
        description="GPUs of one worker, below 1 fractions too; None: one where there are any, unless on the CPU",
    )
    workers: int = Field(1, ge=1, le=_MOST_OF_A_TRIAL, description="processes that train together, under Ray Train")
    ray_train: Literal["auto", "always", "never"] = Field(
        "auto", description="whether trials run under Ray Train; auto: where several workers train together"
    )
    address: str | None = Field(
        None,
        description="'local' starts Ray on this machine, 'auto' joins the cluster that this machine belongs to; None "
        "joins a cluster where there is one and starts Ray where there is none",
    )

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and (gpus % 1 if gpus > 1 else 0 < gpus < _LEAST_GPU):
            raise ValueError(
                f"{gpus:g} is no number of GPUs that Ray can give: write a whole number, or a fraction below 1 of "
                f"{_LEAST_GPU} at least"
            )
        return gpus

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"{redacted(address)}: a study runs on a machine of the cluster, not through a client: send it there "
                "with `ray job submit` or `ray submit`, or write --local"
            )
        return address

    @property
    def through_train(self) -> bool:
        """Whether trials run under Ray Train, and not inside a Ray Tune trial."""
        return self.workers > 1 or self.ray_train == "always"

    @model_validator(mode="after")
    def _workers_need_ray_train(self) -> "Resources":
        if self.workers > 1 and self.ray_train == "never":
            raise ValueError("several workers train together under Ray Train: ray_train cannot be 'never'")
        return self


_M = TypeVar("_M", bound=BaseModel)


def _parsed(kind: type[_M], values: Mapping[str, Any]) -> _M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_problems(error)) from None


def field_paths() -> list[str]:
    """The dotted paths of all fields of a trial, in the order of their declaration."""
    return list(_field_paths(TrialConfig))


@cache
def _field_paths(config: type[TrialConfig]) -> tuple[str, ...]:

    def walk(part: type[BaseModel], prefix: str) -> Iterable[str]:
        for name, field in part.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    return tuple(walk(config, ""))


def absolute_weights(weights: str) -> str:
    """A weights file by its absolute path; names such as `imagenet` as they are."""
    return weights if weights in NAMED_WEIGHTS else str(Path(weights).expanduser().absolute())


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ConfigError, with the nearest known name, where `name` is not one of `known`."""
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}: {suggest(name, known)}known: {', '.join(known)}")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text):,} characters)"


def describe_problems(error: ValidationError) -> str:
    """The problems that pydantic found, one per line, each with the dotted path of its field."""
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] == "value_error" else f", got {_shortened(repr(problem['input']))}"
        lines.append(f"{path}: {message}{given}" if path else message)
    return "\n".join(lines)
