"""From options to one config."""

from collections.abc import Mapping
from typing import Any

from scale_ray.cli.images import usual_pairs
from scale_ray.cli.options import TrialOptions
from scale_ray.cli.read import read_config, read_settings
from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.benchmarks import check_benchmark
from scale_ray.data.defaults import config_of, default_fields, schedule_of
from scale_ray.data.usual import usual_fields
from scale_ray.timm_names import size_fields


def config_from(
    trial: TrialOptions, options: Mapping[str, Any], *, benchmark: str = "digits", own: Mapping[str, Any] | None = None
) -> TrialConfig:
    """The defaults of benchmark, encoder and method, then `own`, the file's fields, options and settings.

    Each overrides the last.

    Args:
        trial: options that every training has.
        options: further options, dotted path -> value.
        benchmark: the one that is used where no option names one.
        own: fields of the experiment; None for a single training.

    Raises:
        ConfigError: an unknown field or a value that it does not take, or a benchmark without usual domain pairs and no
            pair given.
    """
    file, settings = read_config(trial.config, alone=own is None), read_settings(trial.settings)
    own = own or {}
    named = {**own, **file, **trial.fields, **options, **settings}
    benchmark = str(named.get("data.benchmark", trial.benchmark_or(benchmark)))
    pair = {} if check_benchmark(benchmark).pairs else _only_pair(trial, benchmark, named)
    frozen, method = named.get("model.encoder") == "frozen", str(named.get("method", ""))
    usual = usual_fields(benchmark, method, frozen=frozen)
    fields = {
        **default_fields(benchmark, frozen=frozen),
        **size_fields(str(named.get("model.backbone", ""))),
        **usual,
        **pair,
        **own,
        **file,
    }
    if trial.steps is not None:
        fields |= schedule_of(fields, trial.steps) | {path: file[path] for path in ("evaluate_every",) if path in file}
    return config_of({**fields, **trial.fields, **options, **settings})


def _only_pair(trial: TrialOptions, benchmark: str, named: Mapping[str, Any]) -> dict[str, str]:
    """The domain pair where no option names both domains and there is only one that can be meant."""
    given = {path: named[path] for path in ("data.source", "data.target") if path in named}
    if len(given) == 2:
        return {}
    found = [{"data.source": source, "data.target": target} for source, target in usual_pairs(trial.images)]
    found = [pair for pair in found if given.items() <= pair.items()]
    if len(found) == 1:
        return found[0]
    several = ", ".join(f"{pair['data.source']}:{pair['data.target']}" for pair in found)
    reason = f"there are several domain pairs ({several})" if found else f"{benchmark} has no usual domain pair"
    raise ConfigError(f"{reason}: name one (train: --source, --target; studies: --pairs)")
