"""The model card of a bundle: what was trained on what, how good it is as far as known, and how to open it anywhere."""

from collections.abc import Mapping

from scale_ray.bundle.bare import bare_code
from scale_ray.bundle.contents import Bundle
from scale_ray.records import Record
from scale_ray.study import describe
from scale_ray.timm_names import is_timm, pretrained_config


def model_card(bundle: Bundle, record: Record) -> str:
    """README.md of the bundle of a record's trial."""
    config = bundle.config
    data = config.data
    parts = [
        f"# {describe(config)}",
        f"Classifies images into {len(bundle.classes)} classes: {', '.join(bundle.classes)}. scale_ray trained it on "
        f"labelled images of `{data.source}` and unlabelled images of `{data.target}`, for images like the latter.",
        _table("trial", _facts(bundle)),
        "## How good it is",
        *_measured(record),
        "## Licence of the weights",
        _licence(bundle),
        "The images' own terms hold as well: who published them says what a model of them may be used for.",
        "## Without scale_ray",
        "`model.safetensors` opens with plain PyTorch. Every BatchNorm is a plain one with the target's statistics. "
        f"`preprocessing.json` says how images become the network's input.{_precision(bundle)} In this folder:",
        f"```python\n{bare_code(bundle)}```",
        "`model.onnx` and `model.pt`, where they are in the folder, are graphs: they get the pixels after the crop, "
        "(N, 3, S, S), and normalise them, so leave out the mean and deviation of `preprocessing.json`. The type of "
        "their input says which pixels: uint8, or floats from 0 to 1.",
    ]
    return "\n\n".join(parts) + "\n"


def _precision(bundle: Bundle) -> str:
    if bundle.config.optim.precision == "float32":
        return ""
    return " The trial ran in bfloat16, and this code runs in float32: probabilities differ a little."


def _facts(bundle: Bundle) -> dict[str, str]:
    config = bundle.config
    digests = {f"digest of {role}": f"`{digest}`" for role, digest in bundle.inputs.items()}
    return {
        "record": f"`{bundle.record}`",
        "method": config.approach,
        "encoder": f"{config.model.label}, weights `{config.model.weights}`",
        "benchmark": config.data.benchmark,
        "source": config.data.source,
        "target": config.data.target,
        **digests,
    }


def _measured(record: Record) -> list[str]:
    result = record.result
    assert result is not None
    of_target = result.target_accuracy
    known = {
        "accuracy on the target": "not known: its images have no labels" if of_target is None else f"{of_target:.2f} %",
        "accuracy on held-out source images": f"{result.source_val_accuracy:.2f} %",
        **{f"images of {domain}": f"{count:,}" for domain, count in result.images.items()},
    }
    scores = {name: f"{score:.4f}" for name, score in result.validators.items()}
    told = "Scores of validators, which read no target labels. Higher is better, among trainings on the same pair:"
    return [_table("measured", known), *([told, _table("validator", scores)] if scores else [])]


def _table(heading: str, values: Mapping[str, str]) -> str:
    lines = [f"| {heading} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())]
    return "\n".join(lines)


def _licence(bundle: Bundle) -> str:
    """What is known of the licence of the weights that the training began with."""
    model = bundle.config.model
    if model.weights == "none":
        return "The training began with random numbers: no weights of others are in this model."
    if digest := bundle.inputs.get("weights"):
        return (
            f"The training began with a file (sha256 `{digest}`) whose licence scale_ray does not know. It is that of "
            "where the file comes from."
        )
    if is_timm(model.backbone):
        known = pretrained_config(model.backbone)
        return (
            f"The training began with `{model.backbone}` of timm, whose licence timm gives as "
            f"{known.license or 'unknown'} (https://huggingface.co/{known.hf_hub_id or 'timm'})."
        )
    return (
        f"The training began with torchvision's ImageNet weights of {model.backbone}. torchvision is under "
        "BSD-3-Clause and names no licence of the weights; ImageNet's terms allow research that is not commercial."
    )
