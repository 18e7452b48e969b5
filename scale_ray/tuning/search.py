"""A search: its space, the repeats of every setting and the validator that chooses, checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import distribution_to_json

from scale_ray.cell import Cell
from scale_ray.config import ConfigError, Root, TrialConfig, check_name
from scale_ray.records import LAST_POINT_VALIDATORS
from scale_ray.training.resolve import resolve, without_unread
from scale_ray.tuning.early_stop import RULES, check_points
from scale_ray.tuning.optuna_study import check_sampler
from scale_ray.tuning.space import Space, size


@dataclass(frozen=True)
class Repeat:
    """One (domain pair, seed) on which every setting is trained."""

    source: str
    target: str
    seed: int

    @property
    def changes(self) -> dict[str, Any]:
        return {"data.source": self.source, "data.target": self.target, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.source}>{self.target} seed {self.seed}"


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        name: names the search's files in the store.
        base: what all settings share.
        space: the tuned fields and their ranges.
        repeats: the domain pairs and seeds on which every setting is trained.
        validator: a name of `records.score`; its mean over the repeats is maximised.
        settings: number of distinct settings in all.
        sampler: a name in SAMPLERS.
        seed: of the sampler.
        early_stop: `none`, or a name in `early_stop.RULES`: the rule that stops first repeats on their curve.
        parallel: largest number of trials at a time; None: as many as Ray can hold.
        compare_repeats: end a setting by Wilcoxon's test over its repeats.
        root: folder of an image benchmark.
    """

    name: str
    base: TrialConfig
    space: Space
    repeats: Sequence[Repeat]
    validator: str
    settings: int
    sampler: str = "tpe"
    seed: int = 0
    early_stop: str = "none"
    compare_repeats: bool = True
    parallel: int | None = None
    root: Root | None = None

    def cell(self, values: Mapping[str, Any], repeat: Repeat) -> Cell:
        """The cell of a setting and a repeat; raises a ConfigError where the values are no valid config."""
        config = self.base.replace({**values, **repeat.changes})
        return resolve(without_unread(config, self.base, of_methods="method" in values), self.root)

    def check(self) -> None:
        """Raise a ConfigError where the search cannot be run, before anything is written or trained."""
        check_sampler(self.sampler, self.space)
        if self.early_stop != "none":
            check_name("early stop", self.early_stop, ["none", *RULES])
            check_points(self.early_stop, self.base)
            if self.validator in LAST_POINT_VALIDATORS:
                raise ConfigError(
                    f"--early-stop {self.early_stop} needs a score at every point, and {self.validator} is measured at "
                    "the last one only: set --early-stop none, or search by another validator"
                )
        space_size = size(self.space)
        if space_size is not None and space_size < self.settings:
            raise ConfigError(f"the space has {space_size} settings, --trials asks for {self.settings}: lower it")
        for repeat in self.repeats:
            self.cell({}, repeat)

    def spec(self) -> dict[str, Any]:
        """What must not change for a search to go on. Its length and its sampler may change."""
        return {
            "validator": self.validator,
            "space": {path: distribution_to_json(each) for path, each in self.space.items()},
            "repeats": [str(repeat) for repeat in self.repeats],
            "early_stop": self.early_stop,
            "compare_repeats": self.compare_repeats,
            "base": self.cell({}, self.repeats[0]).id,
        }
