"""The fenced code blocks of README and docs, and what the tests do with each.

- ```python runs, all blocks of a page in one namespace; with title="FILE" it is written to FILE, for a command to run.
- ```bash runs command by command, in a folder that holds made-up images, a store and the repository's own files.
- A comment directly above a block changes that:
    <!-- run: with OPTIONS -->   every command runs with OPTIONS at its end (--dry-run, fewer steps)
    <!-- run: no, REASON -->     nothing runs; names that Python imports and options of commands must exist
- Any other language is text to read. A block without a language is an error.
"""

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from studies import LIMIT

from scale_ray import cli

REPOSITORY = Path(__file__).parents[1]
TEXT = ("json", "yaml", "toml", "text", "latex", "markdown")

# What only a cluster has, and what stands for it here.
STAND_INS = {"s3://YOUR-BUCKET/photos": "photos", "s3://YOUR-BUCKET": "runs/bucket"}

_FENCE = re.compile(r'```(?P<language>\w*)(?: title="(?P<title>[\w.]+)")?')
_MARKER = re.compile(r"<!-- run: (?:with (?P<options>\S.*)|no, (?P<reason>\S.*)) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        place: page and line, for messages.
        language: of the fence.
        text: what the fence holds.
        title: the file that it is; None where it is none.
        options: what every command is run with; None where it is run as it stands.
        reason: why it is not run; None where it is.
    """

    place: str
    language: str
    text: str
    title: str | None = None
    options: str | None = None
    reason: str | None = None


def blocks(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page, in order.

    Raises:
        ValueError: a block or marker that is written in no form that this module knows.
    """
    lines = text.splitlines()
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        if "```" not in line:
            continue
        place = f"{page}:{number}"
        fence = _FENCE.fullmatch(line)
        if fence is None or not fence["language"]:
            raise ValueError(f'{place}: write a fence as ```LANGUAGE or ```python title="FILE", at the left margin')
        above = lines[number - 2] if number > 1 else ""
        marker = _MARKER.fullmatch(above)
        if "<!-- run" in above and marker is None:
            raise ValueError(f"{place}: write a marker as <!-- run: with OPTIONS --> or <!-- run: no, REASON -->")
        inside = []
        for _, content in numbered:
            if content == "```":
                break
            inside.append(content)
        yield Block(
            place=place,
            language=fence["language"],
            text="\n".join(inside) + "\n",
            title=fence["title"],
            options=marker["options"] if marker else None,
            reason=marker["reason"] if marker else None,
        )


def try_block(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the current folder, or check it where it is not to be run.

    Args:
        block: of any page.
        names: the namespace of the page's Python.

    Raises:
        AssertionError: a command or option does not exist, or a command fails.
        Exception: whatever its Python raises.
    """
    if block.language == "python":
        if block.title is not None:
            Path(block.title).write_text(block.text)
        elif block.reason is None:
            exec(compile(block.text, block.place, "exec"), names)
        else:
            exec(_imports(block), names)
    elif block.language == "bash":
        for command in _commands(block.text):
            if block.reason is None:
                _run(command, block)
            else:
                _check_options(shlex.split(command, comments=True), block)
    elif block.language not in TEXT:
        raise AssertionError(f"{block.place}: {block.language} is neither python nor bash nor one of {', '.join(TEXT)}")


def _imports(block: Block) -> Any:
    tree = ast.parse(block.text, block.place)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return compile(tree, block.place, "exec")


def _commands(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def _run(command: str, block: Block) -> None:
    for there, here in STAND_INS.items():
        command = command.replace(there, here)
    words = shlex.split(command, comments=True)
    if words[0] == "ray":
        words = _what_ray_submits(words, block)
    words += shlex.split(block.options or "")
    if words[0] == "scale-ray":
        status, output = _run_here(words, None)
    elif words[0] == "python":
        status, output = _run_here(words[1:], Path(words[1]))
    else:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    assert status == 0, f"{block.place}: {shlex.join(words)}: exit status {status}\n{output}"


def _run_here(arguments: Sequence[str], script: Path | None) -> tuple[int, str]:
    """Exit status and output of scale-ray or of a script, in this process: torch is imported once for all of them."""
    out = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.setattr(sys, "argv", list(arguments))
        try:
            if script is None:
                cli.main()
            else:
                runpy.run_path(str(script), run_name="__main__")
        except SystemExit as exit_:
            return int(exit_.code or 0), out.getvalue()
    return 0, out.getvalue()


def _what_ray_submits(words: Sequence[str], block: Block) -> list[str]:
    """The command that `ray submit` or `ray job submit` runs on the head, after a check of what is Ray's own."""
    assert "--" in words, f"{block.place}: {shlex.join(words)} cannot run here: mark it <!-- run: no, REASON -->"
    split = words.index("--")
    submit, submitted = list(words[:split]), list(words[split + 1 :])
    if submit[:2] == ["ray", "submit"]:
        _check_options(submit, block)
        return ["python", submit[-1], *submitted]
    _check_options([*submit, "--", *submitted], block)
    return submitted


def _check_options(words: Sequence[str], block: Block) -> None:
    """Parse a command's options, and run nothing."""
    program, *arguments = words
    if program == "pip":
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [
            extra for word in arguments for each in re.findall(r"\[([\w,]+)\]$", word) for extra in each.split(",")
        ]
        assert set(named) <= set(extras), (
            f"{block.place}: {shlex.join(words)}: pyproject.toml has extras {list(extras)}"
        )
        return
    if program == "optuna-dashboard":
        return
    assert program in ("scale-ray", "ray"), f"{block.place}: {program} has no reason not to be run"
    command = typer.main.get_command(cli.app) if program == "scale-ray" else _ray()
    arguments = [argument for argument in arguments if argument != "&"]
    while hasattr(command, "commands"):
        name = arguments.pop(0)
        assert name in command.commands, f"{block.place}: {program} has no command {name}"
        command = command.commands[name]
    try:
        command.make_context(program, arguments)
    except Exception as error:  # click's, of which there are two: typer has its own
        raise AssertionError(f"{block.place}: {shlex.join(words)}: {error}") from error


def _ray() -> Any:
    from ray.scripts.scripts import cli as ray_cli  # seconds to import

    return ray_cli
