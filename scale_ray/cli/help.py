"""What --help prints: the options that most people need and examples. --help-all prints every option."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# Options that --help leaves out. Every other option of a command is in both.
RARE = frozenset(
    {
        *("config", "facet", "figures", "keep_model", "limit", "most_seeds", "name", "parquet", "published", "sharing"),
        *("address", "checkpoint_every", "channels_last", "compile", "hang_after", "local", "ray_train", "threads"),
        *("cpus_per_trial", "gpus_per_trial", "workers_per_trial", "keep_predictions"),
        *("compare_repeats", "early_stop", "parallel", "sampler", "sampler_seed", "study_url"),
        *("cpus_per_worker", "gpus_per_worker", "shard", "track", "with_report"),
    }
)

_EVERY = "scale_ray.cli.help: every option"
_NAMES_WIDTH = 26
_BOUND = re.compile(r"  \[x>=[^];]+\]|; x>=[^];]+(?=\])")  # of a number: the message of a wrong one says it
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"  # stands for a hyphen while lines are broken, or --dry-run would be


def _show_all(context: typer.Context, given: bool) -> None:
    if given and not context.resilient_parsing:
        context.meta[_EVERY] = True
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all", is_eager=True, expose_value=False, callback=_show_all, help="Show every option and exit."
    ),
]


# Mixed into TyperCommand and TyperGroup. What it calls they share, and the first shows it to the type checker.
class _Help(TyperCommand if TYPE_CHECKING else object):  # type: ignore[misc]
    """Options under the headings that they name, then examples, as plain text that breaks no word."""

    def get_help(self, ctx: Any) -> str:
        return str(super().get_help(ctx)).replace(_UNBROKEN, "-")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text((self.help or "").replace("-", _UNBROKEN))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self._shown(ctx):
            heading = "Arguments" if parameter.param_type_name == "argument" else parameter.rich_help_panel or "Options"
            sections.setdefault(heading, []).append(_row(parameter, ctx))
        for heading in sorted(sections, key="Options".__eq__):  # which has --help, last
            with formatter.section(heading):
                formatter.write_dl(sections[heading], _NAMES_WIDTH)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")
        left_out = sum(each.name in RARE for each in self.get_params(ctx))
        if left_out and _EVERY not in ctx.meta:
            formatter.write_paragraph()
            formatter.write_text(f"--help-all lists {left_out} further option{'s' if left_out > 1 else ''}.")

    def _shown(self, ctx: Any) -> Iterator[Any]:
        hidden = () if _EVERY in ctx.meta else RARE | {"help_all"}  # which the last line names
        yield from (each for each in self.get_params(ctx) if each.name not in hidden)


class Command(_Help, TyperCommand):
    """A command with such a help."""


class Group(_Help, TyperGroup):
    """A group of commands, each with the first sentence of its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(1000)) for name, each in self.commands.items()])


def _row(parameter: Any, ctx: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        names, text = parameter.display_name_raw, parameter.help or ""
    else:
        names, text = parameter.get_help_record(ctx)
    return names, _BOUND.sub("", text).replace("  [", " [").replace("-", _UNBROKEN)
