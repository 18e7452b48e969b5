"""The config that suits a benchmark: its defaults, with changes."""

from collections.abc import Mapping
from typing import Any

from scale_ray.config import DEFAULTS, TrialConfig, absolute_weights, field_paths
from scale_ray.data.benchmarks import FROZEN_DEFAULTS, check_benchmark
from scale_ray.data.usual import USUAL, USUAL_WHERE_FROZEN, usual_fields
from scale_ray.timm_names import size_fields

POINTS = 10  # of a curve, at least: with fewer, nobody sees whether a training had ended


def base_config(
    benchmark: str = "digits", changes: Mapping[str, Any] | None = None, *, steps: int | None = None
) -> TrialConfig:
    """The benchmark's defaults, with changes by dotted path: `base_config("digits", {"losses.threshold": 0.9})`.

    Args:
        benchmark: a name in BENCHMARKS.
        changes: dotted path -> value. `{"model.encoder": "frozen"}` also brings the defaults of a frozen encoder, and
            `{"method": "dann"}` the settings of its paper (see data/usual.py),
            and a backbone of timm the size of images in timm's data config.
        steps: number of training steps; the warm-up keeps its share of them, and the curve has POINTS at least.

    Raises:
        ConfigError: an unknown benchmark or field, or a value that the field does not take.
    """
    changes = dict(changes or {})
    changes = size_fields(str(changes.get("model.backbone", ""))) | changes
    frozen, method = changes.get("model.encoder") == "frozen", str(changes.get("method", ""))
    fields = default_fields(benchmark, frozen=frozen) | usual_fields(benchmark, method, frozen=frozen) | changes
    return config_of(fields if steps is None else fields | schedule_of(fields, steps) | _said(changes))


def _said(changes: Mapping[str, Any]) -> dict[str, Any]:
    """How often to evaluate, where somebody has said it."""
    return {path: value for path, value in changes.items() if path == "evaluate_every"}


def default_fields(benchmark: str, *, frozen: bool) -> dict[str, Any]:
    """The fields that a benchmark sets, by dotted path, with its first usual domain pair where it has one."""
    entry = check_benchmark(benchmark)
    fields: dict[str, Any] = {"data.benchmark": benchmark, **entry.defaults}
    if entry.pairs:
        fields["data.source"], fields["data.target"] = entry.pairs[0]
    return fields | dict(FROZEN_DEFAULTS) | dict(entry.frozen) if frozen else fields


def schedule_of(fields: Mapping[str, Any], steps: int) -> dict[str, int]:
    """`optim.steps`, the warm-up that keeps the share that it has in `fields`, and evaluations for POINTS at least."""
    # Of the schedule alone: the whole config may be valid only with fields that are set later.
    schedule = {path: value for path, value in fields.items() if path.startswith("optim.") or path == "evaluate_every"}
    usual = DEFAULTS.replace(schedule)
    return {
        "optim.steps": steps,
        "optim.warmup_steps": usual.optim.warmup_steps * steps // usual.optim.steps,
        "evaluate_every": min(usual.evaluate_every, max(1, steps // POINTS)),
    }


def config_of(fields: Mapping[str, Any]) -> TrialConfig:
    """The config with these fields; a weights file by its absolute path, because trials may run elsewhere."""
    config = DEFAULTS.replace(fields)
    return config.replace({"model.weights": absolute_weights(config.model.weights)})


def own_fields(config: TrialConfig) -> dict[str, Any]:
    """The fields in which a config differs from the defaults of benchmark and encoder, without benchmark and pair."""
    defaults = default_fields(config.data.benchmark, frozen=config.model.encoder == "frozen")
    defaults |= size_fields(config.model.backbone)
    return {
        path: config.value(path)
        for path in field_paths()
        if config.value(path) != defaults.get(path, DEFAULTS.value(path))
        and path not in ("data.benchmark", "data.source", "data.target")
    } | ({"model.encoder": "frozen"} if config.model.encoder == "frozen" else {})


def usual_settings(base: TrialConfig) -> dict[str, dict[str, Any]]:
    """The settings of every method's paper on a base config's benchmark, for `Study(…, usual=usual_settings(base))`.

    A field that the base sets otherwise than its benchmark stays as the base has it.

    Returns:
        Method -> dotted path -> value.
    """
    benchmark, frozen, own = base.data.benchmark, base.model.encoder == "frozen", own_fields(base)
    return {
        method: {
            path: value for path, value in usual_fields(benchmark, method, frozen=frozen).items() if path not in own
        }
        for method in USUAL | USUAL_WHERE_FROZEN
    }
