"""What stands under a grid: what an average is, what was left out of it, what lacks, which differences hold up."""

from scale_ray.report.grid import Grid, Key, Place
from scale_ray.report.labels import count


def definition(grid: Grid, averaged: set[Key], over_pairs: bool) -> str:
    spread = "Mean" if max(cell.n for cell in grid.cells.values()) < 2 else "Mean ± sample standard deviation"
    seeds = "n seeds" if grid.seeds is None else count(grid.seeds, "seed")
    pairs = count(len({pair for pair, _ in averaged}), "pair")
    return f"Percent, last iterate. {spread} over {seeds}{f' of the mean over {pairs}' if over_pairs else ''}."


def left_out(
    group: str, states: dict[Place, dict[Key, tuple[str, str]]], values: dict[Place, dict[Key, float]], common: set[Key]
) -> list[str]:
    """What the compared places of one group do not all have, and which of them lacks it."""
    wanted = {key for place in values for key in states[place]}
    left = sorted(wanted - common)
    if not left:
        return []
    reasons = []
    for pair, seed in left[:4]:
        lacking = [
            f"{place[0] if group else ' / '.join(place)} {states[place].get((pair, seed), ('', 'not planned'))[1]}"
            for place in values
            if (pair, seed) not in values[place]
        ]
        more = f" and {len(lacking) - 2} more" if len(lacking) > 2 else ""
        reasons.append(f"{pair} seed {seed} ({', '.join(lacking[:2])}{more})")
    if len(left) > 4:
        reasons.append(f"and {len(left) - 4} more")
    where = f"{group}: " if group else ""
    remark = f"{where}{len(left)} of {len(wanted)} (pair, seed) keys left out, not every compared cell has them: "
    notes = [remark + "; ".join(reasons) + "."]
    pairs_of_seeds: dict[int, set[str]] = {}
    for pair, seed in common:
        pairs_of_seeds.setdefault(seed, set()).add(pair)
    if len(set(map(frozenset, pairs_of_seeds.values()))) > 1:
        notes.append(f"{where}± holds differences between pairs too: the seeds do not average the same pairs.")
    return notes


def incomplete(grid: Grid) -> list[str]:
    """One footnote (†) for every place that shows an average of a part of its records."""
    notes = []
    for (row, column), cell in grid.cells.items():
        if cell.mean is not None and cell.done < cell.planned:
            notes.append(f"† {row} / {column}: {cell.holes(f'of {cell.planned} ')}.")
    return notes


def of_best(best: frozenset[Place], unmarked: dict[str, int], fewest: int, alpha: float) -> list[str]:
    """What bold means, and why no row of a column is bold.

    Args:
        best: the marked places.
        unmarked: column -> (pair, seed) keys on which its two highest rows were compared.
    """
    test = f"two-sided sign-flip permutation test, alpha {alpha:g}, paired over (pair, seed) keys"
    notes = [f"Bold: the highest of its column, and above the second by a {test}."] if best else []
    few = [f"{column} ({keys})" for column, keys in unmarked.items() if keys < fewest]
    if few:
        notes.append(
            f"No best is marked on fewer than {fewest} (pair, seed) keys, which no such test can carry "
            f"(with 3, p is never under 0.25): {', '.join(few)}."
        )
    close = [column for column, keys in unmarked.items() if keys >= fewest]
    if close:
        notes.append(f"No best is marked where the two highest do not differ reliably ({test}): {', '.join(close)}.")
    return notes
