"""What one trial is: frozen, validated, and named by the hash of everything that determines its result.

A `TrialConfig` holds only what can change a number. Where the data lies, how many threads work and where results go
belong to `Execution`, which no identity ever sees.
"""

import difflib
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

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

# Raise it whenever the same config on the same data would train to other numbers: old records are then stale.
RECIPE_VERSION = 1

# Values of model.weights that are no file's path.
NAMED_WEIGHTS = ("none", "imagenet", "openai")

Precision = Literal["float32", "bf16"]

# The order in which a combination of loss terms is written everywhere: ce+ssl+dist+reg. Other terms follow by name.
_TERM_ORDER = ("ce", "ssl", "dist", "reg")


class Variant(NamedTuple):
    """A choice that makes another form of a method: a row of its own, beside its kin."""

    term: str | None  # the loss term that reads it; None: the method's own, in its `reads`
    written: Mapping[object, str]  # value -> what follows the method's name; a value that is not here is the usual one


# By dotted path. Numbers are no variants: a table of one threshold and a table of another are two tables.
VARIANTS: dict[str, Variant] = {
    "losses.contrast": Variant("dist", {"proto": " proto", "bank": " bank"}),
    "baseline.entropy_conditioning": Variant(None, {True: "+E"}),
    "baseline.prompt_ensemble": Variant(None, {True: " ensemble"}),
}


class ConfigError(UserError):
    """A setting that cannot be used; the message names it, its place and what to write instead."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'x'? "`, or an empty string where nothing known is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


def _ordered_terms(terms: Iterable[str]) -> list[str]:
    return sorted(terms, key=lambda name: (_TERM_ORDER.index(name) if name in _TERM_ORDER else len(_TERM_ORDER), name))


def _write_term(name: str, weight: float) -> str:
    """`ssl`, `0.5*ssl`; never with a plus sign, which joins terms."""
    return name if weight == 1 else f"{weight:.12g}*{name}".replace("e+", "e")


def _read_term(text: str, combination: str) -> tuple[str, float]:
    weight, star, name = (part.strip() for part in text.rpartition("*"))
    try:
        number = float(weight) if star else 1.0
    except ValueError:
        name = ""
    if not name:
        raise ValueError(f"{combination!r} is no loss combination: write terms and weights as in 'ce+ssl+0.5*dist'")
    return name, number


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        """Pydantic's own message does not say which key was meant; this one does."""
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
        """-0.0 is 0.0, and must not be another identity."""
        return 0.0 if isinstance(value, float) and value == 0 else value


class DataConfig(_Part):
    """Which images a trial trains on and is measured on."""

    benchmark: str = "office_home"
    source: str = "Art"
    target: str = "Clipart"
    image_size: int = Field(224, ge=8, le=1024, description="side in pixels of what the network sees")
    resize: int = Field(256, ge=8, le=2048, description="side in pixels to which every image is decoded, before crops")
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
    """The random views of an image; every image draws its own parameters."""

    crop_scale: tuple[float, float] = Field((0.5, 1.0), description="share of the image's area that a crop keeps")
    flip: bool = True
    strong: str = Field("randaugment", description="a name in STRONG_VIEWS, applied on top of the weak view")
    randaugment_operations: int = Field(2, ge=0, le=14)
    randaugment_magnitude: int = Field(10, ge=0, le=30)

    @field_validator("crop_scale")
    @classmethod
    def _check_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        low, high = scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale={scale} must satisfy 0 < low <= high <= 1")
        return scale


# Fields of ModelConfig; with `encoder` itself, they came after the first records.
_READ_WHERE_FROZEN = ("frozen_views", "bottleneck_dim")


class ModelConfig(_Part):
    """Encoder, heads and how BatchNorm sees the two domains (METHOD 1)."""

    backbone: str = "resnet50"
    weights: str = Field("imagenet", description="'none', 'imagenet', of a CLIP 'openai', or the path of a state dict")
    encoder: Literal["trained", "frozen"] = Field(
        "trained", description="frozen: its features are computed once, and a bottleneck with both heads trains on them"
    )
    frozen_views: int = Field(
        4, ge=1, le=64, description="encoder=frozen: weak views, and as many strong ones, that are kept of every image"
    )
    bottleneck_dim: int = Field(256, ge=1, description="encoder=frozen: width of the trained layer below both heads")
    hidden_dim: int = Field(1024, ge=1)
    projection_dim: int = Field(128, ge=1)
    contrast_level: Literal["pooled", "spatial"] = "pooled"
    batch_norm: Literal["separate", "joint", "domain", "frozen"] = Field(
        "separate",
        description="one student forward a domain, or one; domain: separate, and predictions take their own domain's "
        "running statistics; frozen: the running statistics of `weights`, never updated",
    )
    teacher_momentum: float = Field(0.99, ge=0, lt=1, description="alpha: theta' <- a theta' + (1 - a) theta")

    @property
    def label(self) -> str:
        """The backbone as tables write it: `resnet50`, and `resnet50 (frozen)`, lest that be taken for fine-tuning."""
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
            raise ValueError("encoder='frozen' with weights='none' has a random network's features: name its weights")
        if self.contrast_level != "pooled":
            raise ValueError("encoder='frozen' keeps pooled features: set contrast_level to 'pooled'")
        if self.batch_norm == "frozen":
            raise ValueError(
                "encoder='frozen' has no BatchNorm with trained statistics left to freeze: set batch_norm to 'separate'"
            )
        return self


class LossesConfig(_Part):
    """The loss combination and its settings (METHOD 3)."""

    terms: dict[str, float] = Field(
        default_factory=lambda: {"ce": 1.0, "ssl": 1.0, "dist": 1.0, "reg": 1.0},
        description="name -> weight; also written 'ce+ssl+0.5*dist'. A weight of 0 switches the term off",
    )
    threshold: float = Field(0.8, ge=0, lt=1, description="a pseudo-label counts where confidence > threshold")
    temperature: float = Field(0.1, gt=0, le=10, description="tau of dist and reg")
    consistency: Literal["cross_entropy", "mse"] = "cross_entropy"
    contrast: Literal["dist", "proto", "bank"] = "dist"
    bank_size: int = Field(200, ge=1, le=10_000, description="contrast=bank: the last projections kept of every class")
    covariance: Literal["diagonal", "full"] = "diagonal"
    statistics_window: Literal["cumulative", "epoch", "ema"] = Field(
        "cumulative", description="epoch: reset each epoch; ema: decays by model.teacher_momentum"
    )
    reg_mean: Literal["batch", "image"] = "batch"

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
    """Settings of the methods that scale is compared with; each reads some, which its `reads` names (METHOD 10)."""

    weight: float = Field(1.0, ge=0, description="of the transfer loss beside ce")
    reversal_gamma: float = Field(
        10.0, gt=0, description="the reversed gradient's coefficient is 2 / (1 + exp(-gamma p)) - 1, p from 0 to 1"
    )
    entropy_conditioning: bool = Field(False, description="cdan weighs images by certainty: CDAN+E")
    mcc_temperature: float = Field(2.5, gt=0, le=100, description="softens the target's predictions in mcc")
    prompt_ensemble: bool = Field(False, description="clip_zero_shot averages OpenAI's 80 prompts, instead of one")
    shared_tokens: int = Field(16, ge=1, description="daprompt: tokens of context that both domains' prompts share")
    domain_tokens: int = Field(16, ge=1, description="daprompt: further tokens of each domain's prompt")
    prompt_threshold: float = Field(
        0.5, ge=0, lt=1, description="daprompt: a zero-shot label counts where confidence > prompt_threshold"
    )
    content_tokens: int = Field(4, ge=1, description="ad_clip: tokens of an image's content in its prompt")
    entropy_weight: float = Field(0.01, ge=0, description="ad_clip: of the entropy of predictions on the target")
    alignment_weight: float = Field(1.0, ge=0, description="ad_clip: of the divergence of the domains' prompts")
    mapping_weight: float = Field(0.1, ge=0, description="ad_clip: of the error of source style made from the target's")


class OptimConfig(_Part):
    """SGD and its length (METHOD 6)."""

    steps: int = Field(20_000, ge=1)
    warmup_steps: int = Field(1_000, ge=0, description="Lw: dist and reg act where step > Lw")
    batch_size: int = Field(32, ge=2, description="images per domain and step")
    learning_rate: float = Field(0.003, gt=0)
    encoder_factor: float = Field(0.1, ge=0, description="the encoder learns at learning_rate times this")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(1e-3, ge=0)
    schedule: Literal["inverse", "cosine", "constant"] = Field("inverse", description="inverse: (1 + 4e-4 t) ** -0.75")
    precision: Precision = Field(
        "float32", description="bf16: forward passes, measured ones too, under autocast; losses and statistics never"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0: set optim.nesterov to false")
        return self


class ParallelConfig(_Part):
    """How many processes train one trial together, on the global batch of `optim.batch_size`."""

    workers: int = Field(
        1,
        ge=1,
        description="the global batch is split over so many processes; BatchNorm sees each part alone unless "
        "synchronised or frozen",
    )
    sync_batch_norm: bool = Field(False, description="BatchNorm sees the whole batch: SyncBatchNorm, on GPUs only")


class TuningBudget(_Part):
    """How a config's values were found: whoever compares it with another sees what was spent on it."""

    study: str = Field(description="the search")
    validator: str = Field(description="what chose; oracle: target labels")
    sampler: str
    fields: tuple[str, ...] = Field(description="dotted paths of what was tuned")
    settings: int = Field(ge=1, description="how many were tried, those stopped early and failed ones too")
    steps: int = Field(ge=0, description="of all their trainings")
    losses: str = Field(description="the combination that was trained, as in ce+ssl")
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
    evaluate_every: int = Field(1_000, ge=1, description="steps between points of the curve; the last step is one")
    tuning: TuningBudget | None = Field(None, description="how values were found, where `scale-ray tune` chose them")

    @model_serializer(mode="wrap")
    def _leave_out_no_tuning(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that an untuned config reads as it did before there was tuning, and keeps its identity."""
        values: dict[str, Any] = write(self)
        return values if self.tuning is not None else {key: value for key, value in values.items() if key != "tuning"}

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        workers, batch = self.parallel.workers, self.optim.batch_size
        if self.parallel.sync_batch_norm and self.model.batch_norm == "domain":
            raise ValueError(
                "model.batch_norm='domain' keeps statistics that parallel.sync_batch_norm cannot synchronise: set that "
                "to false, or model.batch_norm to 'separate'"
            )
        if batch % workers:
            raise ValueError(
                f"optim.batch_size={batch} cannot be split evenly over parallel.workers={workers}: make it a multiple"
            )
        if batch == workers and not self.any_workers_alike:
            raise ValueError(
                f"optim.batch_size={batch} leaves each of parallel.workers={workers} one image, of which BatchNorm "
                "makes nothing: lower parallel.workers, or set model.batch_norm to 'frozen'"
            )
        return self

    @property
    def any_workers_alike(self) -> bool:
        """Whether this trial gives what one worker would, but for last bits: where BatchNorm sees no parts."""
        return self.parallel.workers == 1 or self.parallel.sync_batch_norm or self.model.batch_norm == "frozen"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Build a config from nested values.

        Raises:
            ConfigError: one line a problem, each naming the field by its dotted path.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_describe(error)) from None

    def replace(self, changes: Mapping[str, Any]) -> "TrialConfig":
        """A copy with other values at dotted paths: `config.replace({"losses.threshold": 0.9})`.

        Raises:
            ConfigError: a path that is no field (with the nearest one that is), or a value out of range.
        """
        # What is not changed stays the same object: the cells of a large study share most of their parts.
        values: dict[str, Any] = {name: getattr(self, name) for name in TrialConfig.model_fields}
        known = _field_paths()
        for path, value in changes.items():
            if path not in known:
                hint = suggest(path, known) or f"fields: {list(known)}"
                raise ConfigError(f"unknown field {path!r}: {hint}".rstrip())
            *parents, leaf = path.split(".")
            place = values
            for parent in parents:
                if isinstance(place[parent], BaseModel):
                    place[parent] = place[parent].model_dump()
                place = place[parent]
            place[leaf] = value
        return TrialConfig.parse(values)

    def value(self, path: str) -> Any:
        """The value at a dotted path."""
        place: Any = self
        for name in path.split("."):
            place = getattr(place, name)
        return place

    @property
    def pair(self) -> str:
        """The domain pair as it is written in tables: `mnist>mnistm`."""
        return f"{self.data.source}>{self.data.target}"

    @property
    def combination(self) -> str:
        """The loss combination as it is written in tables: `ce+ssl+dist+reg`; a weight other than 1 is shown."""
        return "+".join(_write_term(name, weight) for name, weight in self.losses.terms.items())

    @property
    def approach(self) -> str:
        """What trains, in short: the loss combination of scale and source_only, of any other method its variant."""
        if self.method not in ("scale", "source_only"):
            return self.variant
        return self.combination if self.variant == self.method else f"{self.combination} ({self.variant})"

    @property
    def variant(self) -> str:
        """The method, and what sets it apart from its usual form: `scale`, `scale bank`, `cdan+E`."""
        chosen = [
            variant.written.get(self.value(path), "")
            for path, variant in VARIANTS.items()
            if variant.term is None or variant.term in self.losses.terms
        ]
        return "".join([self.method, *chosen])

    def canonical_json(self) -> str:
        """One text for one meaning: keys sorted, floats in shortest form, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


class Execution(BaseModel):
    """Where and how a trial runs. No identity sees it, for nothing here may change more than a result's last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path | None = Field(None, description="folder of an image benchmark: root/domain/class/image")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1'")
    threads: int = Field(1, ge=1, description="torch threads: the CPUs that the trial was given")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    keep_model: bool = Field(False, description="store the trained model (without projection head) beside the record")
    channels_last: bool = Field(True, description="the layout in which convolutions are fastest, on CPU and GPU alike")
    compile: bool = Field(False, description="torch.compile of the encoders: minutes first, then faster steps")


def field_paths() -> list[str]:
    """Every field of a trial by its dotted path, in the order in which they are declared."""
    return list(_field_paths())


@cache
def _field_paths() -> tuple[str, ...]:

    def walk(part: type[BaseModel], prefix: str) -> Iterable[str]:
        for name, field in part.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from walk(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    return tuple(walk(TrialConfig, ""))


def identity(config: TrialConfig, inputs: Mapping[str, str]) -> str:
    """The trial's id: 64 hex digits.

    Where the number of workers may change only last bits, it has no part in it.

    Args:
        config: what is trained.
        inputs: digests of what is read, by role: `source`, `target`, and `weights` where a file was named. They stand
            for the files, so that neither host nor path matters.
    """
    values = config.model_dump(mode="json")
    if "weights" in inputs:
        values["model"]["weights"] = "file"
    if config.any_workers_alike:
        values["parallel"] = ParallelConfig().model_dump(mode="json")
    # Added after the first records of this recipe were made: their identities, and what they trained, stay.
    if config.baseline == BaselineConfig():
        del values["baseline"]
    if config.losses.bank_size == LossesConfig().bank_size:
        del values["losses"]["bank_size"]
    if config.model.encoder == "trained":
        for name in ("encoder", *_READ_WHERE_FROZEN):
            del values["model"][name]
    document = {"config": values, "inputs": dict(inputs), "recipe": RECIPE_VERSION}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raise ConfigError, with the nearest known name, where `name` is not one of `known`."""
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}: {suggest(name, known)}known: {', '.join(known)}")


def _describe(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
        lines.append(f"{place}: {message}{given}" if place else message)
    return "\n".join(lines)
