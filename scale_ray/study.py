"""A study: a base config and axes, expanded into cells in plain Python before anything runs."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.records import Record


@dataclass(frozen=True)
class Study:
    """Every combination of the axes' values on top of a base config.

    Args:
        name: the study's file in the store, so letters, digits, dots, dashes and underscores.
        base: what all cells share.
        axes: name -> values. The name is a dotted path of TrialConfig, or any word where each value is a mapping of
            dotted paths: a domain pair sets two fields. The first axis varies slowest.

    Raises:
        ConfigError: a name that cannot be a file's.
    """

    name: str
    base: TrialConfig
    axes: Mapping[str, Sequence[Any]]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ConfigError(
                f"study name {self.name!r} names a file: write letters, digits, dots, dashes and underscores alone"
            )

    def cells(self) -> list[TrialConfig]:
        """One config a cell, in the order in which they are to run.

        Raises:
            ConfigError: an axis has no values, a value is not valid, or two cells are the same trial.
        """
        for axis, values in self.axes.items():
            if not values:
                raise ConfigError(f"study {self.name!r}: axis {axis!r} has no values: name at least one")
        configs = [
            self.base.replace(_changes(zip(self.axes, point, strict=True)))
            for point in itertools.product(*self.axes.values())
        ]
        seen: set[str] = set()
        for config in configs:
            text = config.canonical_json()
            if text in seen:
                raise ConfigError(
                    f"study {self.name!r} plans one cell twice ({describe(config)}): "
                    "its axes repeat a value; name each once"
                )
            seen.add(text)
        return configs


def _changes(point: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for axis, value in point:
        changes.update(value if isinstance(value, Mapping) and "." not in axis else {axis: value})
    return changes


def ablation(
    name: str,
    base: TrialConfig,
    *,
    pairs: Sequence[tuple[str, str]],
    combinations: Sequence[str],
    backbones: Sequence[str],
    seeds: Sequence[int],
) -> Study:
    """The paper's grid: domain pair x loss combination x backbone x seed (METHOD 8).

    The combination `ce` alone is the method source_only; any other is scale. Seeds vary slowest, so that the first
    seed's grid is whole before the second begins.
    """
    return Study(
        name=name,
        base=base,
        axes={
            "seed": list(seeds),
            "pair": [{"data.source": source, "data.target": target} for source, target in pairs],
            "model.backbone": list(backbones),
            "combination": [
                {"method": "source_only" if combination == "ce" else "scale", "losses.terms": combination}
                for combination in combinations
            ],
        },
    )


def comparison(
    name: str,
    base: TrialConfig,
    *,
    pairs: Sequence[tuple[str, str]],
    approaches: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
) -> Study:
    """Domain pair x method x seed, on one budget: that of `base`.

    Args:
        approaches: of every method, the fields that it sets, by dotted path.
    """
    return Study(
        name=name,
        base=base,
        axes={
            "seed": list(seeds),
            "pair": [{"data.source": source, "data.target": target} for source, target in pairs],
            "approach": list(approaches),
        },
    )


SettingState = Literal["done", "stopped", "pruned", "failed", "open"]


@dataclass(frozen=True)
class Setting:
    """One point of a search: sampled values by dotted path, and what their trainings gave.

    Attributes:
        number: in the order in which the settings were asked for; gaps are duplicates, which were not run.
        values: by dotted path.
        state: done: every repeat has a record. stopped: its first repeat was ended early. pruned: the repeats so far
            were so far below the best setting's that the others were not run. open: the search has not ended.
        reason: why it did not end as done; where it was stopped.
        validators: name -> mean score over the repeats that have a record, higher is better; `oracle` is the target
            accuracy in percent. Those that chose nothing are there to be compared.
        repeats: how many repeats have a record.
        steps: of all its trainings, a warm-up that settings share counted with the first of them.
    """

    number: int
    values: Mapping[str, Any]
    state: SettingState
    reason: str = ""
    validators: Mapping[str, float] = field(default_factory=dict)
    repeats: int = 0
    steps: int = 0


def describe_values(values: Mapping[str, Any]) -> str:
    """A setting in one line: `losses.threshold=0.8, losses.temperature=0.1`."""
    return ", ".join(
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values.items()
    )


def describe(config: TrialConfig) -> str:
    """A cell in one line: `mnist>mnistm ce+ssl lenet seed 0`, `mnist>mnistm dann lenet seed 0`."""
    return f"{config.pair} {config.approach} {config.model.label} seed {config.seed}"


CostKey = tuple[str, str]  # combination or method; backbone and sizes


def seconds_per_step(records: Iterable[Record]) -> dict[CostKey, float]:
    """Measured cost by `cost_key`: mean over the finished records that took a step, evaluation included."""
    seconds: dict[CostKey, float] = defaultdict(float)
    steps: dict[CostKey, int] = defaultdict(int)
    for record in records:
        if record.result is not None and record.result.steps:
            key = cost_key(record.config)
            seconds[key] += record.provenance.wall_seconds
            steps[key] += record.result.steps
    return {key: seconds[key] / steps[key] for key in seconds}


def cost_key(config: TrialConfig) -> CostKey:
    """What a step's cost mostly depends on."""
    return config.approach, f"{config.model.label} {config.data.image_size} px x {config.optim.batch_size}"


def estimate_seconds(work: Iterable[tuple[TrialConfig, int]], measured: Mapping[CostKey, float]) -> float | None:
    """Seconds that so many steps of these configs need, one after the other; None where some has no measured kin.

    A combination or method that was never measured counts as the dearest measured one of its backbone and sizes.
    """
    total = 0.0
    for config, steps in work:
        if not steps:  # measured, and never trained
            continue
        key = cost_key(config)
        alike = [cost for (_, network), cost in measured.items() if network == key[1]]
        if not alike:
            return None
        total += measured.get(key, max(alike)) * steps
    return total
