"""The forms of grid that every report has: loss combination by backbone, and method by domain pair."""

from collections.abc import Sequence

import pandas as pd

from scale_ray.report.read.labels import by_combination, by_method, combination_labels, count, method_labels, natural
from scale_ray.report.tables.aggregate import build_grids, in_order, with_average
from scale_ray.report.tables.facets import LABELLED, facets
from scale_ray.report.tables.grid import Grid, Layout
from scale_ray.report.tables.published import beside_ablation, beside_methods

LOSSES_BY_BACKBONE = "losses_by_backbone"
PAIRS_BY_METHOD = "pairs_by_method"
FORMS = (LOSSES_BY_BACKBONE, PAIRS_BY_METHOD)


def grids(
    cells: pd.DataFrame, *, remarks: Sequence[str] = (), published: bool = False, oracle: bool = False
) -> list[Grid]:
    """Build the grids of every report, by benchmark, facet, form and metric.

    `losses_by_backbone` (the paper's Table 1) averages over pairs and has the methods `scale` and `source_only`; the
    row of `source_only` is `ce`. `pairs_by_method` (Table 2) has one grid per pre-training, which `stacks` combines
    into one table, and a last column with the average over pairs. A config field that differs among the records of
    one entry is never averaged over: it splits the grids.

    Args:
        cells: as `load` or `completeness.check` returns them.
        remarks: notes to show under every grid.
        published: show other authors' accuracies beside the student's target accuracy.
        oracle: show the best epoch's target accuracy beside the student's; `cells` must have oracle_accuracy.

    Raises:
        ReportError: two cells have the same row, column, pair and seed.
    """
    found = []
    for benchmark, facet, differing, part in facets(cells[cells["method"].isin(["scale", "source_only"])]):
        labelled = part.assign(row=combination_labels(part), column=part["backbone"], group="")
        rows = sorted(labelled["row"].unique(), key=by_combination)
        columns = sorted(labelled["column"].unique(), key=natural)
        cited = beside_ablation(benchmark, columns) if published else None
        layout = Layout(LOSSES_BY_BACKBONE, benchmark, facet, rows, columns)
        found += build_grids(layout, labelled, [*differing, *remarks], cited, oracle)
    for benchmark, facet, differing, part in facets(cells, (*LABELLED, "pre_training")):
        found += _pairs_by_method(benchmark, facet, part, [*differing, *remarks], published, oracle)
    return found


def _pairs_by_method(
    benchmark: str, facet: str, part: pd.DataFrame, remarks: list[str], published: bool, oracle: bool
) -> list[Grid]:
    """One grid per pre-training and metric, all with the same columns.

    Published accuracies of a pre-training without measured cells make a grid of their own.
    """
    groups = {
        str(group): with_average(share.assign(row=method_labels(share), column=share["pair"], group=share["pair"]))
        for group, share in part.groupby("pre_training")
    }
    columns = in_order(pd.concat(groups.values())["column"])
    cited = beside_methods(benchmark, columns) if published else {}
    pairs = {group: set(cells["pair"]) for group, cells in groups.items()}
    if any(of_group != set(part["pair"]) for of_group in pairs.values()):
        counts = "; ".join(f"{group}: {count(len(pairs[group]), 'pair')}" for group in sorted(pairs, key=natural))
        remarks = [*remarks, f"The groups do not have the same pairs, and each averages over its own: {counts}."]
    found = []
    for group in sorted(groups | cited, key=natural):
        if group in groups:
            rows = sorted(groups[group]["row"].unique(), key=by_method)
            layout = Layout(PAIRS_BY_METHOD, benchmark, facet, rows, columns, over_pairs=False, group=group)
            found += build_grids(layout, groups[group], remarks, cited.get(group), oracle)
        else:
            named = (PAIRS_BY_METHOD, benchmark, facet, "target_accuracy")
            found.append(Grid(*named, [], columns, {}, [], beside=[cited[group]], group=group))
    return found
