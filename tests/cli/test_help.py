"""What --help and --help-all print at 80 columns, and what a mistyped option gets."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import command, refused

from scale_ray import Study, base_config, cli, main, tune
from scale_ray.cli.help import RARE
from scale_ray.cli.study import study_command

COLUMNS = 80
MOST_LINES = 50


def commands_below(group: Any, *names: str) -> dict[tuple[str, ...], Any]:
    found = {names: group}
    for name, each in getattr(group, "commands", {}).items():
        found |= commands_below(each, *names, name)
    return found


COMMANDS = commands_below(typer.main.get_command(cli.app))


def own_study() -> None:
    main(Study("own", base_config("digits"), {"seed": [0]}))


def own_search() -> None:
    tune(Study("own", base_config("digits"), {}))


PROGRAMS = [(cli.main, words) for words in COMMANDS] + [(own_study, ()), (own_search, ())]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def options_in(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w, )?(--[a-z][a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize(("program", "words"), PROGRAMS)
def test_help_is_short_and_ends_with_examples(program: Any, words: tuple[str, ...]) -> None:
    usage, *lines = command(*words, "--help", program=program).out.splitlines()
    shown = "\n".join(lines)
    assert len(lines) < MOST_LINES
    assert max(map(len, [usage, *lines])) <= COLUMNS
    assert not re.search(r"<(bool|str|list|int)|\[x[<>]|\w…$|\.\.\.$", shown, re.MULTILINE)
    _, examples = shown.split("\nExamples:\n")
    assert re.match(r"  (scale-ray|python) ", examples)


@pytest.mark.parametrize(("program", "words"), PROGRAMS)
def test_the_last_line_says_how_many_options_help_all_adds(program: Any, words: tuple[str, ...]) -> None:
    shown = command(*words, "--help", program=program).out
    counted = re.search(r"^--help-all lists (\d+) further options?\.$", shown, re.MULTILINE)
    if counted is None:
        assert command(*words, "--help-all", program=program).status == 2
        return
    assert shown.endswith(f"{counted.group()}\n")
    outcome = command(*words, "--help-all", program=program)
    assert outcome.status == 0
    assert options_in(shown) < options_in(outcome.out)
    assert len(options_in(outcome.out) - options_in(shown) - {"--help-all"}) == int(counted.group(1))
    assert max(map(len, outcome.out.splitlines())) <= COLUMNS
    assert "further option" not in outcome.out


@pytest.mark.parametrize("words", COMMANDS)
def test_help_all_names_every_option(words: tuple[str, ...]) -> None:
    parameters = COMMANDS[words].params
    rare = any(parameter.name in RARE for parameter in parameters)
    shown = options_in(command(*words, "--help-all" if rare else "--help").out)
    assert shown == {each.opts[0] for each in parameters if each.param_type_name == "option"} | {"--help"}


def test_every_rare_option_exists() -> None:
    assert {parameter.name for each in COMMANDS.values() for parameter in each.params} >= RARE


def test_no_option_has_two_names_except_for_a_letter() -> None:
    for words, each in COMMANDS.items():
        for parameter in each.params:
            if parameter.param_type_name == "option":
                assert len([name for name in parameter.opts if name.startswith("--")]) == 1, (words, parameter.opts)


@pytest.mark.parametrize("name", ["ablate", "compare", "auto", "tune", "train"])
@pytest.mark.parametrize(("mistyped", "right"), [("--storage", "--store"), ("--backbones", "--backbone")])
def test_an_option_of_another_name_gets_a_line_with_the_right_one(name: str, mistyped: str, right: str) -> None:
    refused(command(name, mistyped, "x"), f"No such option: {mistyped} (Possible options: ", right)


def test_adapt_which_has_its_store_in_its_results_takes_no_other() -> None:
    refused(command("adapt", "--store", "x"), "No such option: --store")


def test_a_script_keeps_the_lines_of_commands_in_its_docstring() -> None:
    experiment = Path(__file__).parents[2] / "experiments" / "ablation.py"
    text = experiment.read_text().split('"""')[1]
    indented = [line for line in text.splitlines() if line.startswith("    python")]
    assert len(indented) == 2
    shown = command(
        "--help",
        program=lambda: cli.run_as_script(study_command(lambda: Study("own", base_config("digits"), {}), text), {}),
    ).out
    assert set(indented) <= {line[2:] for line in shown.splitlines()}
