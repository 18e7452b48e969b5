"""The text of an entry, the same in every format."""

from collections.abc import Callable

from scale_ray.report.tables.grid import Entry, Grid, Position, Stack, lack


def entry_text(entry: Entry, grid: Grid) -> str:
    """`94.2 ± 0.3`, or the reason for a missing number.

    `(n=2)` follows if n differs over the grid, † if some of the entry's records are missing, and ‡ if one of its
    trainings did not learn its source.
    """
    if entry.mean is None:
        return _reason(entry, grid.metric)
    spread = "" if entry.std is None else f" ± {entry.std:.1f}"
    count = "" if grid.seeds is not None else f" (n={entry.n})"
    marks = f"{'†' if entry.done < entry.planned else ''}{'‡' if entry.unlearned else ''}"
    return f"{entry.mean:.1f}{spread}{count}{' ' * bool(marks)}{marks}"


def interval_text(entry: Entry) -> str:
    """The interval, or two seeds as they are; one seed is the mean itself."""
    if entry.low is not None and entry.high is not None:
        if entry.low == entry.high:
            return "all seeds alike"
        decimals = 1 if f"{entry.low:.1f}" != f"{entry.high:.1f}" else 2
        return f"[{entry.low:.{decimals}f}, {entry.high:.{decimals}f}]"
    return "seeds " + ", ".join(f"{value:.1f}" for value in entry.by_seed) if len(entry.by_seed) > 1 else ""


def question(stack: Stack) -> str:
    """What the small print of a table's entries answers."""
    entries = [entry for grid in stack.grids for entry in grid.entries.values() if entry.mean is not None]
    if any(entry.low is not None for entry in entries):
        return "Below each mean: its 95 % interval, for the same pairs and other seeds."
    if any(entry.n > 1 for entry in entries):
        return "Below each mean: the value of each seed. They are too few for an interval."
    return "With one seed, no entry has an interval."


def beside_text(grid: Grid, position: Position) -> str:
    """A figure in a column beside the measured ones: `72.2`, or `—` if there is none."""
    mean, std = grid.beside_figure(position)
    if mean is None:
        return "—"
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def row_texts(
    stack: Stack, grid: Grid, row: str, escape: Callable[[str], str], bold: Callable[[str], str]
) -> list[str]:
    """The escaped texts of a row's entries, the best of a column in bold, then those of the columns beside."""
    texts = []
    for column in grid.columns:
        text = escape(entry_text(grid.entries.get((row, column), Entry()), grid))
        texts.append(bold(text) if (row, column) in grid.best else text)
    return texts + [escape(beside_text(grid, (row, column))) for column in stack.beside]


def _reason(entry: Entry, metric: str) -> str:
    if entry.planned == 0:
        return "—"
    if entry.measured:
        return "nothing in common"
    if entry.done:
        return lack(metric, entry.unlabelled == entry.done)
    states = {"failed": entry.failed, "missing": entry.missing, "stale": entry.stale}
    present = [status for status, count in states.items() if count]
    if present == ["missing"]:
        return "missing"
    return ", ".join(f"{status} ({states[status]})" for status in present)
