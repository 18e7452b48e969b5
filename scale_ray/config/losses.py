"""The losses of a trial: the combination of scale, and the settings of the methods that it is compared with."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from scale_ray.config.parts import Introduced, Part

# The order in which a combination of loss terms is written everywhere: ce+ssl+dist+reg. Other terms follow by name.
_TERM_ORDER = ("ce", "ssl", "dist", "reg")


def _ordered_terms(terms: Iterable[str]) -> list[str]:
    return sorted(terms, key=lambda name: (_TERM_ORDER.index(name) if name in _TERM_ORDER else len(_TERM_ORDER), name))


def write_term(name: str, weight: float) -> str:
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


class LossesConfig(Part):
    """The loss combination and its settings (docs/method.md, section 3)."""

    terms: dict[str, float] = Field(
        default_factory=lambda: {"ce": 1.0, "ssl": 1.0, "dist": 1.0, "reg": 1.0},
        description="name -> weight; also written 'ce+ssl+0.5*dist'. A weight of 0 switches the term off",
    )
    threshold: float = Field(0.8, ge=0, lt=1, description="a pseudo-label counts where confidence > threshold")
    thresholding: Annotated[Literal["fixed", "flex", "relative"], Introduced("fixed")] = Field(
        "fixed",
        description="fixed: `threshold`; flex: one for each class that follows the confidences; relative: `threshold` "
        "times the mean confidence on the source batch; both act after the warm-up, before which all have `threshold`",
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


class BaselineConfig(Part):
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
