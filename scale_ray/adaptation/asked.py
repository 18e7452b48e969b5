"""What is adapted, from what a person says; every name is checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale_ray.adaptation.places import places
from scale_ray.budget import read_time
from scale_ray.config import Catalogue, ConfigError, TrialConfig, check_name
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.errors import shown
from scale_ray.records import DEFAULT_CHOOSER, ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES
from scale_ray.study import Study, pairs

STUDY = "adapt"


@dataclass(frozen=True)
class Asked:
    """What is adapted, and how.

    Attributes:
        catalogue: the source and the targets.
        base: what all candidates share; its source and target are replaced.
        seeds: of every candidate.
        choose: the validator that chooses.
        budget: seconds that the trainings may take; None is no limit.
        check: labels of some target images, for checking only; None: those that are filled in in the folder's
            check.csv, if any.
    """

    catalogue: Catalogue
    base: TrialConfig
    seeds: Sequence[int] = (0,)
    choose: str = DEFAULT_CHOOSER
    budget: float | None = None
    check: Path | None = None

    @property
    def source(self) -> str:
        (source,) = (name for name, place in self.catalogue.domains if place.labelled)
        return source

    @property
    def targets(self) -> list[str]:
        return [name for name, place in self.catalogue.domains if not place.labelled]


def ask(
    source: str,
    targets: Sequence[str],
    *,
    label_map: Mapping[str, str] | None = None,
    backbone: str = "mobilenet_v2",
    weights: str = "imagenet",
    fine_tune: bool = False,
    seeds: Sequence[int] = (0,),
    choose: str = DEFAULT_CHOOSER,
    budget: str | None = None,
    check: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Asked:
    """What to adapt, from what a person says.

    Args:
        source, targets, label_map: see `places`.
        backbone, weights: the encoder that all candidates share.
        fine_tune: train the encoder too.
        seeds, choose, check: see `Asked`.
        budget: a time, as in `30m`.
        changes: further config fields of all candidates, by dotted path.

    Raises:
        ConfigError: images or labels do not exist, or the validator, the budget, a field or a value is none.
    """
    if choose == ORACLE:
        raise ConfigError(f"--choose {ORACLE}: it reads labels of the target, which has none: name another validator")
    check_name("validator", choose, [*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES])
    if check is not None and not check.exists():
        raise ConfigError(f"--check {shown(check)}: no such file or folder: name labels of target images")
    seconds = None if budget is None else read_time(budget)
    encoder = {"model.backbone": backbone, "model.weights": weights} | (
        {} if fine_tune else {"model.encoder": "frozen"}
    )
    stand_in = {"data.source": "source", "data.target": "target"}
    return Asked(
        catalogue=places(source, targets, dict(label_map or {})),
        base=base_config("image_folder", encoder | dict(changes or {}) | stand_in),
        seeds=tuple(seeds),
        choose=choose,
        budget=seconds,
        check=check,
    )


def study_of(asked: Asked) -> Study:
    """The study of all candidates that fit the base config; its axis `method` is to be set."""
    base = asked.base.replace({"data.source": asked.source, "data.target": asked.targets[0]})
    axes: dict[str, list[Any]] = {
        "seed": list(asked.seeds),
        "pair": pairs(*(f"{asked.source}:{target}" for target in asked.targets)),
    }
    return Study(STUDY, base, axes, usual_settings(base))
