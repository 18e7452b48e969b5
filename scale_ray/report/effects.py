"""What the loss terms do, from the cells of a store: tables for a paper, with what they cannot say beside them."""

from typing import NamedTuple

import pandas as pd

from scale_ray.report.aggregate import by_combination, combination_labels, facets, join
from scale_ray.report.claims import claims
from scale_ray.report.comparisons import against_baseline
from scale_ray.report.contrasts import COMBINATIONS, by_key, main_effects, shapley_values
from scale_ray.report.load import ReportError

BASELINE = "ce"  # training without adaptation


class EffectTables(NamedTuple):
    """One frame a table; each begins with benchmark and facet (what all of it shares and other parts do not).

    Estimates and their intervals are percentage points, p and Holm's p are probabilities.
    """

    effects: pd.DataFrame  # see contrasts.main_effects
    shapley: pd.DataFrame  # see contrasts.shapley_values
    differences: pd.DataFrame  # see comparisons.against_baseline
    claims: pd.DataFrame  # see claims.claims
    notes: list[str]  # what was left out, and why


def effects_tables(
    cells: pd.DataFrame, baseline: str = BASELINE, metric: str = "target_accuracy", *, most: int | None = None
) -> EffectTables:
    """Effects, Shapley values, differences and claims of every benchmark, facet and backbone.

    Effects and Shapley values need all 8 combinations of a (pair, seed) key: keys that lack one are left out, and a
    note counts them.

    Args:
        cells: as `load` returns them; only done ones with a value of the metric count.
        baseline: a label, `ce`, `ce+ssl` or a method such as `dann`.
        metric: a column of percentages.
        most: so many facets at most, from the first on; a note says how many were left out. Each takes a tenth of a
            second or more a backbone.

    Raises:
        ReportError: two cells stand for the same label, backbone, pair and seed; or nothing is done of a baseline
            other than `ce`.
    """
    found: dict[str, list[pd.DataFrame]] = {table: [] for table in ("effects", "shapley", "differences", "claims")}
    notes = []
    parts = list(facets(cells))
    labels: set[str] = set()
    for benchmark, facet, _, part in parts[:most]:
        place = {"benchmark": benchmark, "facet": facet}
        measured = tidy(part, metric)
        labels |= set(measured["label"])
        whole, remarks = whole_keys(measured)
        notes += [f"{join(benchmark, facet)}: {remark}" for remark in remarks]
        results = {
            "effects": main_effects(whole) if len(whole) else None,
            "shapley": shapley_values(whole) if len(whole) else None,
            "differences": against_baseline(measured, baseline),
            "claims": claims(measured),
        }
        for table, result in results.items():
            if result is not None and len(result):
                found[table].append(result.assign(**place)[[*place, *result.columns]])
    if labels and baseline not in {*labels, BASELINE}:
        known = ", ".join(sorted(labels, key=by_combination))
        raise ReportError(f"baseline {baseline!r}: nothing is done of it: choose from {known}")
    if most is not None and len(parts) > most:
        notes.append(f"{len(parts) - most} of {len(parts)} groups of settings were left out here.")
    frames = {table: pd.concat(share, ignore_index=True) if share else pd.DataFrame() for table, share in found.items()}
    return EffectTables(**frames, notes=notes)


def tidy(cells: pd.DataFrame, metric: str = "target_accuracy") -> pd.DataFrame:
    """Cells of `load` that are done as label, backbone, pair, seed, accuracy; one benchmark and facet.

    The label is the loss combination (`ce` is source_only's), or the method's variant, `dann`, `cdan+E`; where a method
    stands with several combinations, `dann (ce)`.
    """
    ablation = cells["method"].isin(["scale", "source_only"])
    several = cells.groupby("method")["losses"].transform("nunique") > 1
    methods = cells["variant"].where(~several, cells["variant"] + " (" + cells["losses"] + ")")
    labels = combination_labels(cells[ablation]).reindex(cells.index).fillna(methods)
    tidied = cells[["backbone", "pair", "seed"]].assign(label=labels, accuracy=cells[metric])
    return tidied[(cells["status"] == "done") & cells[metric].notna()]


def whole_keys(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The tidy cells of (backbone, pair, seed) keys that have all 8 combinations, and a remark on every loss."""
    kept, remarks = [], []
    for backbone, part in cells[cells["label"].isin(COMBINATIONS)].groupby("backbone"):
        table = by_key(part)
        absent = [label for label in COMBINATIONS if label not in table]
        whole = table.dropna()
        if absent:
            remarks.append(f"{backbone}: no effects or Shapley values: no cell of {', '.join(absent)} is done.")
        elif len(whole) < len(table):
            remarks.append(
                f"{backbone}: effects and Shapley values leave out {len(table) - len(whole)} of {len(table)} "
                "(pair, seed) keys: not all 8 combinations are done."
            )
        if not absent:
            kept.append(part[pd.MultiIndex.from_frame(part[["pair", "seed"]]).isin(whole.index)])
    return (pd.concat(kept) if kept else cells.iloc[:0]), remarks
