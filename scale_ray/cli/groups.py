"""Commands whose parameters are groups of options."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints

from scale_ray.cli.help import RARE, HelpAll

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A Typer command in which every parameter that is a dataclass stands for the options that are its fields.

    A field with `init=False` is decided by the group and is no option.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if not dataclasses.is_dataclass(hints[name]):
            parameters.append(parameter.replace(kind=KEYWORD_ONLY, annotation=hints[name]))
            continue
        groups[name] = hints[name]
        of_group = get_type_hints(hints[name], include_extras=True)
        parameters += [
            inspect.Parameter(field.name, KEYWORD_ONLY, default=field.default, annotation=of_group[field.name])
            for field in dataclasses.fields(hints[name])
            if field.init
        ]

    if any(parameter.name in RARE for parameter in parameters):
        parameters.append(inspect.Parameter("help_all", KEYWORD_ONLY, default=False, annotation=HelpAll))

    @wraps(function)
    def run(**values: Any) -> None:
        values.pop("help_all", None)
        for name, group in groups.items():
            options = [field.name for field in dataclasses.fields(group) if field.init]
            values[name] = group(**{option: values.pop(option) for option in options})
        function(**values)

    run.__doc__ = _marked(function.__doc__ or "")
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _marked(text: str) -> str:
    """Help whose indented paragraphs, such as commands, keep their lines, by the mark that Typer has for them."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(f"\b\n{each}" if each.startswith(" ") else each for each in paragraphs)
