"""The tables of effects. To add one, write its function and an entry in `TABLES`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from scale_ray.report.effects.claims import claims, range_text
from scale_ray.report.effects.columns import (
    Column,
    interval,
    interval_or_values,
    p_value,
    points,
    whole,
    whole_interval,
    words,
)
from scale_ray.report.effects.comparisons import HALF_WIDTH, MOST_EXACT, against_baseline
from scale_ray.report.effects.contrasts import main_effects, shapley_values
from scale_ray.report.effects.measured import Measured, measure
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import by_combination, join
from scale_ray.report.read.unlearned import RULE
from scale_ray.report.tables.facets import facets

BASELINE = "ce"  # training without adaptation


@dataclass(frozen=True)
class Bars:
    """How a table is drawn: one bar per row, with its interval."""

    label: str  # the column that labels a bar
    heading: str  # of the figures on the page
    axis: str  # what the length of a bar is


@dataclass(frozen=True)
class EffectTable:
    """One table of effects. Text, CSV files, the page and the figures are made from it."""

    name: str  # of its CSV file and figures
    title: str
    explanation: str
    function: Callable[[Measured], pd.DataFrame]  # one row per line of the table; may be empty
    in_paper: list[Column]  # what a paper has room for
    further: list[Column] = field(default_factory=list)
    bars: Bars | None = None

    @property
    def columns(self) -> list[Column]:
        return [*self.in_paper, *self.further]


_BACKBONE = Column("backbone", words, ("backbone",))
_OTHER_PAIRS = Column("95 %: on other pairs", interval_or_values, ("low", "high", "by_pair"))
_THESE_PAIRS = Column("95 %: on these pairs, other seeds", interval_or_values, ("these_low", "these_high", "by_seed"))
_ESTIMATE = [Column("points", points, ("estimate",)), _THESE_PAIRS, _OTHER_PAIRS]
_COUNTS = [Column("pairs", whole, ("pairs",)), Column("keys", whole, ("keys",))]
_KIND = Column("interval method", words, ("kind",))
_BOOTSTRAP = Column("bootstrap percentiles", interval, ("bootstrap_low", "bootstrap_high"))
_LEFT_OUT = Column("keys left out", whole, ("left_out",))
_VERDICTS = [
    Column("on these pairs", words, ("verdict_these_pairs",)),
    Column("on other pairs", words, ("verdict",)),
]

TABLES = [
    EffectTable(
        name="differences",
        title="Differences from the baseline",
        explanation="Percentage points, over the pairs and seeds that a row shares with the baseline. There are two "
        "questions. Would other seeds give the same on these pairs? The interval over seeds answers it. Would other "
        "pairs give the same? Few pairs cannot answer it, even where the averages above are far apart. The p is of a "
        "sign-flip permutation test of the pairs' means, corrected over the rows of a backbone (Holm). With 3 pairs it "
        f"is 0.25 or more. The test takes all sign flips of up to {MOST_EXACT} pairs, and a random sample of them for "
        "more. The verdict is n too small where no outcome on so few pairs could give 0.05.",
        function=lambda measured: against_baseline(measured.cells, measured.baseline),
        in_paper=[
            _BACKBONE,
            Column("label", words, ("label",)),
            Column("baseline", words, ("baseline",)),
            *_ESTIMATE,
            *_VERDICTS,
            Column("Holm's p, other pairs", p_value, ("p_pairs_holm",)),
            *_COUNTS,
        ],
        further=[
            _KIND,
            _BOOTSTRAP,
            _LEFT_OUT,
            Column("sd of seeds", points, ("sd_seeds",)),
            Column("smallest p over pairs", p_value, ("p_pairs_smallest",)),
            Column("Holm's p over keys", p_value, ("p_keys_holm",)),
            Column(f"seeds needed for ±{HALF_WIDTH:g}", whole, ("seeds_needed",)),
            Column("seeds needed, 95 %", whole_interval, ("seeds_needed_low", "seeds_needed_high")),
            Column("± with unlimited seeds", points, ("over_pairs",)),
        ],
    ),
    EffectTable(
        name="effects",
        title="Main effects and interactions of the loss terms",
        explanation="Percentage points: on minus off, averaged over the other terms; an interaction is half a "
        "difference of such differences.",
        function=lambda measured: main_effects(measured.factorials, measured.terms),
        in_paper=[_BACKBONE, Column("effect", words, ("effect",)), *_ESTIMATE, *_COUNTS],
        further=[_KIND, _BOOTSTRAP],
    ),
    EffectTable(
        name="shapley",
        title="Shapley values of the loss terms",
        explanation="Percentage points: what a term adds when it joins, averaged over all orders of the terms; the "
        "terms sum to the full combination minus ce.",
        function=lambda measured: shapley_values(measured.factorials, measured.terms),
        in_paper=[_BACKBONE, Column("term", words, ("term",)), *_ESTIMATE, *_COUNTS],
        further=[_KIND, _BOOTSTRAP],
        bars=Bars("term", "What each loss term adds", "Shapley value (points of target accuracy)"),
    ),
    EffectTable(
        name="claims",
        title="The paper's claims (section 5.4)",
        explanation="A claim holds if the whole 95 % interval lies in the range, and does not hold if it lies outside; "
        "otherwise there are too few cells. On these pairs: would other seeds say so? On other pairs: would "
        "other pairs?",
        function=lambda measured: claims(measured.cells),
        in_paper=[
            _BACKBONE,
            Column("claim", words, ("claim",)),
            Column("range", range_text, ("range_low", "range_high")),
            *_ESTIMATE,
            *_VERDICTS,
            *_COUNTS,
        ],
        further=[
            _KIND,
            Column("TOST p", p_value, ("p_tost",)),
            _LEFT_OUT,
            Column("why", words, ("why",)),
        ],
    ),
]


@dataclass(frozen=True)
class Effects:
    """The computed tables of effects.

    Attributes:
        frames: by the name of a table, one frame for all benchmarks and facets; empty if it has no row. Its first
            columns are `benchmark` and `facet`. Estimates and their intervals are percentage points; p-values are
            probabilities.
        notes: what was left out, and why.
    """

    frames: dict[str, pd.DataFrame]
    notes: list[str]


def effects_tables(
    cells: pd.DataFrame, baseline: str = BASELINE, metric: str = "target_accuracy", *, most: int | None = None
) -> Effects:
    """Compute all `TABLES` for every benchmark, facet and backbone.

    Main effects and Shapley values are over the optional loss terms that occur in the done cells of a facet. They need
    all combinations of these terms: (pair, seed) keys that lack one are left out, and a note counts them.

    Args:
        cells: as `load` returns them; only done cells with a value of the metric count.
        baseline: a label: `ce`, `ce+ssl` or a method such as `dann`.
        metric: a column of percentages.
        most: the largest number of facets to compute, the first ones; a note counts the rest. A facet takes a tenth of
            a second or more per backbone.

    Raises:
        ReportError: two cells have the same label, backbone, pair and seed, or nothing is done of a baseline other
            than `ce`.
    """
    found: dict[str, list[pd.DataFrame]] = {table.name: [] for table in TABLES}
    notes = []
    parts = list(facets(cells))
    labels: set[str] = set()
    for benchmark, facet, _, part in parts[:most]:
        scope = {"benchmark": benchmark, "facet": facet}
        if number := int(part["unlearned"].sum()):
            trainings = "1 training" if number == 1 else f"{number} trainings"
            notes.append(f"{join(benchmark, facet)}: {trainings} here did not learn the source: {RULE}.")
        measured, remarks = measure(part, baseline, metric)
        labels |= set(measured.cells["label"])
        notes += [f"{join(benchmark, facet)}: {remark}" for remark in remarks]
        for table in TABLES:
            frame = table.function(measured)
            if len(frame):
                found[table.name].append(frame.assign(**scope)[[*scope, *frame.columns]])
    if labels and baseline not in {*labels, BASELINE}:
        known = ", ".join(sorted(labels, key=by_combination))
        raise ReportError(f"baseline {baseline!r}: nothing is done of it: choose from {known}")
    if most is not None and len(parts) > most:
        notes.append(f"{len(parts) - most} of {len(parts)} facets were left out here.")
    frames = {name: pd.concat(share, ignore_index=True) if share else pd.DataFrame() for name, share in found.items()}
    return Effects(frames, notes)
