"""The paper's claims about its loss terms (section 5.4), tested on the cells of a store.

A claim is an estimate and a range in which the estimate must lie. It holds if the whole 95 % interval lies in the
range (for a range around 0 this is a test of equivalence: TOST at 2.5 %). It does not hold if the whole interval lies
outside. Otherwise there are too few cells for a verdict. docs/statistics.md quotes the sentences and gives the origin
of the ranges, of which the paper states only one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import pandas as pd
from statsmodels.stats.weightstats import DescrStatsW

from scale_ray.report.effects.contrasts import by_key
from scale_ray.report.effects.resampling import intervals
from scale_ray.report.read.labels import natural

# Percentage points.
LITTLE = 1.0  # the smallest gain that the paper names is 1 %
JUMP = 5.0  # the gain of dist alone in Table 1, which section 5.4 does not call significant
ROUNDING = 0.25  # every accuracy of Table 1 is a multiple of 0.5


@dataclass(frozen=True)
class Claim:
    """An estimate, as weights of combinations' accuracies, and its range in percentage points."""

    sentence: str
    weights: dict[str, int]
    low: float
    high: float


CLAIMS = [
    Claim("ssl alone changes little", {"ce+ssl": 1, "ce": -1}, -LITTLE, LITTLE),
    Claim("reg alone changes little", {"ce+reg": 1, "ce": -1}, -LITTLE, LITTLE),
    Claim("ssl and dist together jump", {"ce+ssl+dist": 1, "ce": -1}, JUMP, inf),
    Claim(
        "ssl and dist together give more than the sum of each alone",
        {"ce+ssl+dist": 1, "ce+ssl": -1, "ce+dist": -1, "ce": 1},
        0.0,
        inf,
    ),
    Claim(
        "reg adds 1 to 1.5 points to ce+ssl+dist",
        {"ce+ssl+dist+reg": 1, "ce+ssl+dist": -1},
        1.0 - ROUNDING,
        1.5 + ROUNDING,
    ),
]

COLUMNS = [
    "backbone", "claim", "range_low", "range_high", "estimate", "low", "high", "kind", "p_tost", "verdict",
    "these_low", "these_high", "by_pair", "by_seed", "verdict_these_pairs", "pairs", "keys", "left_out", "why",
]  # fmt: skip
TOO_FEW = "too few cells"


def claims(cells: pd.DataFrame) -> pd.DataFrame:
    """Test every claim on every backbone, on the keys that all of the claim's combinations have.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent).

    Returns:
        One row per backbone and claim:
        range_low, range_high: the claim's range, percentage points.
        the columns of `intervals` except the bootstrap percentiles, percentage points.
        left_out: number of keys that some of the combinations have and others lack.
        verdict: `holds`, `does not hold` or `too few cells`, by the headline interval (other pairs like these).
        verdict_these_pairs: the same by the interval for these pairs.
        why: the reason for `verdict`.
        p_tost: the larger p of two one-sided t-tests on pair means, that the estimate is not below and not above the
            range (Schuirmann 1987). It is small if the claim holds; NaN for one pair.

    Raises:
        ReportError: a key occurs twice.
    """
    parts = []
    for backbone in sorted(cells["backbone"].unique(), key=natural):
        table = by_key(cells[cells["backbone"] == backbone])
        parts.append(pd.DataFrame([{"backbone": backbone} | row for row in _rows(table)], columns=COLUMNS))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _rows(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    held = {claim.sentence: table.reindex(columns=list(claim.weights)) for claim in CLAIMS}
    values = pd.DataFrame(
        {
            claim.sentence: (held[claim.sentence] * pd.Series(claim.weights)).sum(axis=1, skipna=False)
            for claim in CLAIMS
        }
    ).dropna(axis=1, how="all")
    found = intervals(values) if len(values.columns) else pd.DataFrame()
    for claim in CLAIMS:
        cells = held[claim.sentence]
        row: dict[str, object] = {"claim": claim.sentence, "range_low": claim.low, "range_high": claim.high}
        if claim.sentence in values:
            estimate: dict[str, Any] = {str(name): value for name, value in found.loc[claim.sentence].items()}
            left_out = int(cells.notna().any(axis=1).sum() - values[claim.sentence].notna().sum())
            yield row | estimate | {"left_out": left_out} | _judge(claim, estimate, values[claim.sentence].dropna())
        else:
            absent = [label for label in claim.weights if cells[label].isna().all()]
            why = f"no cell of {', '.join(absent)}" if absent else f"no key that all of {', '.join(claim.weights)} have"
            none = {
                "by_pair": "",
                "by_seed": "",
                "pairs": 0,
                "keys": 0,
                "left_out": int(cells.notna().any(axis=1).sum()),
            }
            yield row | none | {"verdict": TOO_FEW, "verdict_these_pairs": TOO_FEW, "why": why}


def _judge(claim: Claim, estimate: dict[str, Any], values: pd.Series) -> dict[str, object]:
    verdict, why = verdict_of(estimate["low"], estimate["high"], claim)
    these, _ = verdict_of(estimate["these_low"], estimate["these_high"], claim)
    means = values.groupby(level="pair").mean()
    p = nan
    # Pair means without spread occur only in made-up data: t is then 0 / 0.
    if len(means) > 1 and means.std() > 1e-9:
        p = DescrStatsW(means.to_numpy()).ttost_mean(claim.low, claim.high)[0]
    return {"verdict": verdict, "verdict_these_pairs": these, "why": why, "p_tost": p}


def range_text(low: float, high: float) -> str:
    """`[-1, 1]`, `[5, ∞)`."""
    return f"[{low:g}, ∞)" if high == inf else f"[{low:g}, {high:g}]"


def verdict_of(low: float, high: float, claim: Claim) -> tuple[str, str]:
    """A claim's verdict by an interval in percentage points, and the reason in numbers."""
    if isnan(low):
        return TOO_FEW, "fewer than three pairs: no interval over pairs"
    interval = f"[{low:.2f}, {high:.2f}]"
    wanted = range_text(claim.low, claim.high)
    if claim.low <= low and high <= claim.high:
        return "holds", f"{interval} lies in {wanted}"
    if high < claim.low or claim.high < low:
        return "does not hold", f"{interval} lies outside {wanted}"
    return TOO_FEW, f"{interval} lies partly in {wanted}"
