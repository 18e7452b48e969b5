"""The notes under a grid: what is averaged, what was left out, what is incomplete, what bold means."""

from scale_ray.report.read.labels import count
from scale_ray.report.read.unlearned import RULE
from scale_ray.report.tables.grid import Grid, Key, Position, Trial, lack

_MOST_NAMED = 6  # entries in a footnote


def definition(grid: Grid, averaged: set[Key], over_pairs: bool) -> str:
    """What an entry's numbers are."""
    spread = "Mean" if max(entry.n for entry in grid.entries.values()) < 2 else "Mean ± sample standard deviation"
    seeds = "n seeds" if grid.seeds is None else count(grid.seeds, "seed")
    pairs = count(len({pair for pair, _ in averaged}), "pair")
    return f"Percent, last iterate. {spread} over {seeds}{f' of the mean over {pairs}' if over_pairs else ''}."


def left_out(
    group: str,
    metric: str,
    trials: dict[Position, dict[Key, Trial]],
    values: dict[Position, dict[Key, float]],
    common: set[Key],
) -> list[str]:
    """The keys that not every compared entry of a group has, and which entries lack them.

    Args:
        group: its label, or empty.
        metric: of the values.
        trials: by position and key.
        values: those of done cells that have one, by position and key.
        common: the keys that every position of `values` has.
    """
    wanted = {key for position in values for key in trials[position]}
    left = sorted(wanted - common)
    if not left:
        return []
    reasons = []
    for pair, seed in left[:4]:
        lacking = [
            f"{position[0] if group else ' / '.join(position)} {_state(trials[position].get((pair, seed)), metric)}"
            for position in values
            if (pair, seed) not in values[position]
        ]
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        reasons.append(f"{pair} seed {seed} ({', '.join(lacking[:2])}{more})")
    if len(left) > 4:
        reasons.append(f"and {len(left) - 4} more")
    where = f"{group}: " if group else ""
    remark = (
        f"{where}{len(left)} of {len(wanted)} (pair, seed) keys left out because not every compared entry has them: "
    )
    notes = [remark + "; ".join(reasons) + "."]
    pairs_of_seeds: dict[int, set[str]] = {}
    for pair, seed in common:
        pairs_of_seeds.setdefault(seed, set()).add(pair)
    if len(set(map(frozenset, pairs_of_seeds.values()))) > 1:
        notes.append(f"{where}± includes differences between pairs: the seeds do not average the same pairs.")
    return notes


def _state(trial: Trial | None, metric: str) -> str:
    """Why a trial has no value of a metric."""
    if trial is None:
        return "not planned"
    return lack(metric, trial.unlabelled) if trial.status == "done" else trial.status


def incomplete(grid: Grid) -> list[str]:
    """One footnote (†) for all entries that lack the same records."""
    alike: dict[str, list[str]] = {}
    for (row, column), entry in grid.entries.items():
        if entry.mean is not None and entry.done < entry.planned:
            alike.setdefault(entry.holes(f"of {entry.planned} "), []).append(f"{row} / {column}")
    return [f"† {holes}: {_first(entries)}." for holes, entries in alike.items()]


def _first(names: list[str]) -> str:
    more = f"; and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return "; ".join(names[:_MOST_NAMED]) + more


def unlearned(grid: Grid) -> list[str]:
    """What ‡ means, and how many of an entry's trainings it is for."""
    marked = {position: entry for position, entry in grid.entries.items() if entry.unlearned}
    if not marked:
        return []
    shares = _first([f"{row} / {column}: {entry.unlearned}" for (row, column), entry in marked.items()])
    return [f"‡ Averages trainings that did not learn their source: {RULE}. Their number: {shares}."]


def of_best(best: frozenset[Position], unmarked: dict[str, int], fewest: int, alpha: float) -> list[str]:
    """What bold means, and why a column has no bold row.

    Args:
        best: the marked positions.
        unmarked: column -> number of (pair, seed) keys on which its two highest rows were compared.
        fewest: the least number of keys with which the test can be significant.
        alpha: the level of the test.
    """
    test = f"two-sided sign-flip permutation test, alpha {alpha:g}, paired over (pair, seed) keys"
    notes = [f"Bold: the highest of its column, significantly above the second ({test})."] if best else []
    few = [f"{column} ({keys})" for column, keys in unmarked.items() if keys < fewest]
    if few:
        notes.append(
            f"No best is marked on fewer than {fewest} (pair, seed) keys, where the test cannot be significant "
            f"(with 3 keys, p is at least 0.25): {', '.join(few)}."
        )
    close = [column for column, keys in unmarked.items() if keys >= fewest]
    if close:
        notes.append(
            f"No best is marked where the two highest do not differ significantly ({test}): {', '.join(close)}."
        )
    return notes
