"""What is wrong with a config, in one line each."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

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


def describe_problems(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """The problems that pydantic found, one per line, each with the dotted path of its field.

    Args:
        error: what it raised.
        kind: the model; with it, a field that does not exist is told with the nearest one that does.
    """
    return "\n".join(describe_problem(problem, kind) for problem in error.errors())


def describe_problem(problem: Mapping[str, Any], kind: type[BaseModel] | None = None) -> str:
    """One of pydantic's problems in a line; see `describe_problems`."""
    path, given = ".".join(map(str, problem["loc"])), _shortened(repr(problem["input"]))
    *above, name = problem["loc"] or [""]
    known = {} if kind is None else _fields(kind, above)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden" and known:
        return f"unknown field {path!r}: {suggest(str(name), known)}known: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{path}: is missing"
    if problem["type"] == "string_pattern_mismatch" and name in known and known[name].description:
        return f"{path}: {given} cannot be used: write {known[name].description}"
    if problem["type"] != "value_error":
        message += f", got {given}"
    return f"{path}: {message}" if path else message


def _fields(kind: type[BaseModel], path: Sequence[Any]) -> Mapping[str, FieldInfo]:
    """The fields of the model at a path below another one; empty where there is none."""
    parts = iter(path)
    for part in parts:
        field = kind.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        inner = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
        models = [each for each in inner if issubclass(each, BaseModel)]
        if not models:
            return {}
        kind = models[0]
        if get_origin(annotation) in (dict, list, tuple):
            next(parts, None)  # the key or place of a model in it
    return kind.model_fields


_M = TypeVar("_M", bound=BaseModel)


def parsed(kind: type[_M], values: Mapping[str, Any]) -> _M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_problems(error)) from None
