"""scale-ray fields: what can be set, what it means, and what it is by default."""

from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo
from rich.text import Text

from scale_ray.cli import complete
from scale_ray.cli.console import console, plain_table
from scale_ray.config import DEFAULTS, ConfigError, field_info, field_paths
from scale_ray.data.benchmarks import check_benchmark
from scale_ray.data.defaults import default_fields


def fields(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="Show fields with any of these in their path: optim, losses.threshold."),
    ] = None,
    benchmark: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.benchmark,
            help="Whose defaults are shown: a name that `scale-ray data list` shows.",
        ),
    ] = "image_folder",
    frozen: Annotated[bool, typer.Option("--frozen", help="With the defaults of a frozen encoder.")] = False,
) -> None:
    """List the fields of a training, for --set PATH=VALUE and --axis PATH=V,V, with their defaults and meanings."""
    check_benchmark(benchmark)
    shown = [path for path in field_paths() if not words or any(word in path for word in words)]
    if not shown:
        raise ConfigError(f"no field with {' or '.join(map(repr, words or []))}: scale-ray fields lists all")
    defaults, usual = default_fields(benchmark, frozen=frozen), DEFAULTS
    table = plain_table("field", "default", "meaning")
    for path in shown:
        table.add_row(path, _text(defaults.get(path, usual.value(path))), Text(_meaning(field_info(path))))
    console.print(table)


def _meaning(field: FieldInfo) -> str:
    """The description, or else the values that it takes."""
    choices = [each for each in get_args(field.annotation) if isinstance(each, str)]
    return field.description or (f"one of {', '.join(choices)}" if choices else "")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
