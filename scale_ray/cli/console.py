"""Where commands print. Paths and names go out as they are: no markup, no emoji codes.

On a terminal, sentences break between words, and never within a path. In a file or a pipe, no line is broken by us.
"""

from collections.abc import Iterable
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

INTERRUPTED = 130  # the shell's exit status after Ctrl-C


class CommandConsole(Console):
    """A console of a command."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = 10_000  # a file or a pipe has no columns: what people grep stays on one line

    def print(self, *objects: Any, **how: Any) -> None:
        if self.is_terminal and "soft_wrap" not in how:
            how["soft_wrap"] = all(isinstance(each, str) for each in objects)  # no table or note
            objects = tuple(_broken(each, self.width) if isinstance(each, str) else each for each in objects)
        super().print(*objects, **how)

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print plain lines as `print` does, without rich, which takes long for the 100,000 lines of some listings."""
        for line in lines:
            self.file.write(f"{_broken(line, self.width) if self.is_terminal else line}\n")

    def print_command(self, command: str) -> None:
        """A command on one line, for the clipboard: the terminal itself breaks what is too long."""
        self.print(f"  {command}", soft_wrap=True)


def _broken(text: str, width: int) -> str:
    """Lines between words, a line's rest below its beginning. A longer word, such as a path, stays in one piece."""
    wrap = TextWrapper(width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    lines = []
    for line in text.split("\n"):
        wrap.subsequent_indent = " " * (len(line) - len(line.lstrip(" ")))
        lines += wrap.wrap(line) or [""]
    return "\n".join(lines)


console = CommandConsole()
stderr = CommandConsole(stderr=True)


def plain_table(*headings: str) -> Table:
    """A table without lines, whose cells break where they are too wide."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    return table


def print_frame(frame: "pd.DataFrame") -> None:
    """Print texts as a table; where it is too wide, line by line: `heading: value`."""
    rows = [list(map(str, row)) for row in frame.to_numpy(dtype=str)]
    headings = list(map(str, frame))
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    if sum(widths) + len(widths) - 1 <= console.width:
        table = plain_table(*headings)
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    for row in rows:
        first, *others = zip(headings, row, strict=True)
        console.print(": ".join(first))
        for heading, text in others:
            console.print(f"  {heading}: {text}")
