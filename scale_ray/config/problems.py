"""What is wrong with a config, in one line each."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
)

from scale_ray.errors import UserError

# Characters of a wrong value that a message shows.
_MOST_SHOWN = 100


class ConfigError(UserError):
    """A setting that cannot be used; the message names it and what to write instead."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"did you mean 'x'? "`, or an empty string where no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}? " if near else ""


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


_M = TypeVar("_M", bound=BaseModel)


def parsed(kind: type[_M], values: Mapping[str, Any]) -> _M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_problems(error)) from None
