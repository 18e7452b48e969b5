"""Where commands print. Paths and names go out as they are: no markup, no emoji codes, no line broken by us."""

from rich.console import Console

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 10_000  # a file or a pipe has no columns: what people grep stays on one line

INTERRUPTED = 130  # the shell's exit status after Ctrl-C
