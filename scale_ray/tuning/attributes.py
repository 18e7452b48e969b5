"""What a search keeps in its Optuna study besides settings and scores, which anybody may have edited.

A journal is JSON lines and a database is tables, and Optuna's dashboard writes to both. So everything that is read
later is checked once, when the search is opened; from then on this driver alone writes to it.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal, NotRequired

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.errors import shown
from scale_ray.store import StoreError

GENERATION = "cma:generation"  # Optuna's own name, so that searches of earlier versions go on


class Stopped(TypedDict):
    """Where the first repeat of a setting was ended early."""

    repeat: Literal[0]
    step: NonNegativeInt


class _Spec(TypedDict):
    """What is searched; of it, what is read from the study. The rest is only compared."""

    space: NotRequired[dict[str, str]]
    repeats: NotRequired[list[str]]
    validator: NotRequired[str]


_OF_STUDY: dict[str, TypeAdapter[Any]] = {"spec": TypeAdapter(_Spec), "base_config": TypeAdapter(dict[str, Any])}

_OF_SETTING: dict[str, TypeAdapter[Any]] = {
    "cells": TypeAdapter(dict[str, str]),  # repeat -> id
    "warm_ups": TypeAdapter(dict[str, tuple[str, NonNegativeInt]]),  # repeat -> key of its state, steps
    "curve": TypeAdapter(list[tuple[NonNegativeInt, float]]),  # step, score
    "stopped": TypeAdapter(Stopped),
    "reason": TypeAdapter(str),
    "duplicate_of": TypeAdapter(NonNegativeInt),
    "default": TypeAdapter(dict[str, float | bool | str | None]),  # of a setting that is outside of the space
}

# What Optuna and the samplers keep.
_OF_SYSTEM: dict[str, TypeAdapter[Any]] = {
    GENERATION: TypeAdapter(NonNegativeInt),
    "fixed_params": TypeAdapter(dict[str, float | str | None]),
}

_SCORES = TypeAdapter(tuple[float])
_INTERMEDIATE = TypeAdapter(dict[NonNegativeInt, float])


def check_attributes(optuna_study: optuna.Study, location: str, remedy: str) -> None:
    """Raise a StoreError where the study holds what no search writes.

    Args:
        location: names the journal or the database.
        remedy: what to do then.
    """
    try:
        problem = next(_problems(optuna_study), None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # Optuna's own reading of it
        problem = f"it cannot be parsed ({str(error).partition(chr(10))[0]})"
    if problem is not None:
        raise StoreError(f"{location}: not a readable search ({shown(problem)}): {remedy}")


def _problems(optuna_study: optuna.Study) -> Iterator[str]:
    yield from _misfits("the search", optuna_study.user_attrs, _OF_STUDY)
    yield from _no_config(optuna_study.user_attrs.get("base_config"))
    space = {
        path: json_to_distribution(text)
        for path, text in optuna_study.user_attrs.get("spec", {}).get("space", {}).items()
    }
    for trial in optuna_study.get_trials(deepcopy=False):
        setting = f"setting {trial.number}"
        yield from _misfits(setting, trial.user_attrs, _OF_SETTING)
        yield from _misfits(setting, trial.system_attrs, _OF_SYSTEM)
        yield from _misfits(
            setting, {"intermediate values": trial.intermediate_values}, {"intermediate values": _INTERMEDIATE}
        )
        if trial.state == TrialState.COMPLETE:
            yield from _misfits(setting, {"score": trial.values}, {"score": _SCORES})
        yield from _unusable(trial, space)


def _misfits(owner: str, values: dict[str, Any], expected: dict[str, TypeAdapter[Any]]) -> Iterator[str]:
    for name, kind in expected.items():
        if name in values:
            try:
                kind.validate_json(json.dumps(values[name]), strict=True)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                place = ".".join(map(str, first["loc"]))
                yield f"{owner}: {name}{place and f', {place}'}: {first['msg']}"


def _no_config(base: dict[str, Any] | None) -> Iterator[str]:
    try:
        if base is not None:
            TrialConfig.parse(base)
    except ConfigError as error:
        yield f"the search: base_config, {str(error).partition(chr(10))[0]}"


def _unusable(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> Iterator[str]:
    """Values that somebody has enqueued and no setting can have, such as a word for a number."""
    for path, value in trial.system_attrs.get("fixed_params", {}).items():
        try:
            if path in space:
                space[path].to_internal_repr(value)
        except (ValueError, TypeError) as error:
            yield f"setting {trial.number}: fixed_params, {path}: {error}"
