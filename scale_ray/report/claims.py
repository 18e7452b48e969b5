"""The paper's own sentences on its loss terms (section 5.4), tested on the data at hand.

A sentence becomes an estimate and a range that the estimate must lie in. It holds where the whole 95 % interval lies in
the range (for a range around 0: a test of equivalence, stricter than TOST at 5 %), does not hold where none of the
interval does, and in between the cells are too few to tell. docs/statistics.md quotes the sentences and says where the
ranges' numbers come from: the paper gives but one.
"""

from dataclasses import dataclass
from math import inf, isnan

import pandas as pd

from scale_ray.report.aggregate import natural
from scale_ray.report.contrasts import by_key
from scale_ray.report.resampling import intervals

LITTLE = 1.0  # points: less than the least gain that the paper names, 1 %
JUMP = 5.0  # points: what the paper's Table 1 has for dist alone, which section 5.4 does not call significant
ROUNDING = 0.25  # points: every accuracy of Table 1 is a multiple of 0.5


@dataclass(frozen=True)
class Claim:
    """An estimate, as weights of combinations' accuracies, and the range in points that the paper gives it."""

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
    "backbone", "claim", "range_low", "range_high", "estimate", "low", "high", "kind", "verdict",
    "these_low", "these_high", "verdict_these_pairs", "pairs", "keys", "left_out", "why",
]  # fmt: skip


def claims(cells: pd.DataFrame) -> pd.DataFrame:
    """Every claim on every backbone, from the keys that all of the claim's combinations have.

    Args:
        cells: columns label, backbone, pair, seed, accuracy (percent).

    Returns:
        backbone, claim; range_low, range_high: where the paper has it; the columns of `intervals` (all percentage
        points); left_out: keys that some of the combinations have and others lack;
        verdict: `holds`, `does not hold`, `too few cells`, by the headline interval (other pairs like these);
        verdict_these_pairs: by the interval for these very pairs; why: the reason for `verdict`.

    Raises:
        ReportError: a key twice.
    """
    rows = []
    for backbone in sorted(cells["backbone"].unique(), key=natural):
        table = by_key(cells[cells["backbone"] == backbone])
        rows += [{"backbone": backbone} | _judge(claim, table) for claim in CLAIMS]
    return pd.DataFrame(rows, columns=COLUMNS)


def _judge(claim: Claim, table: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = {"claim": claim.sentence, "range_low": claim.low, "range_high": claim.high}
    held = table.reindex(columns=list(claim.weights))
    whole = held.dropna()
    row["left_out"] = len(held.dropna(how="all")) - len(whole)
    if whole.empty:
        absent = [label for label in claim.weights if held[label].isna().all()]
        what = f"no cell of {', '.join(absent)}" if absent else f"no key that all of {', '.join(claim.weights)} have"
        few = "too few cells"
        return row | {"pairs": 0, "keys": 0, "kind": "", "verdict": few, "verdict_these_pairs": few, "why": what}
    found = intervals((whole @ pd.Series(claim.weights)).to_frame()).iloc[0].to_dict()
    verdict, why = verdict_of(found["low"], found["high"], claim)
    these, _ = verdict_of(found["these_low"], found["these_high"], claim)
    return row | found | {"verdict": verdict, "verdict_these_pairs": these, "why": why}


def verdict_of(low: float, high: float, claim: Claim) -> tuple[str, str]:
    """A claim's verdict by an interval, and the reason in numbers."""
    if isnan(low):
        return "too few cells", "one pair or one seed a pair: no interval"
    interval = f"[{low:.2f}, {high:.2f}]"
    wanted = f"> {claim.low:g}" if claim.high == inf else f"[{claim.low:g}, {claim.high:g}]"
    if claim.low <= low and high <= claim.high:
        return "holds", f"{interval} lies in {wanted}"
    if high < claim.low or claim.high < low:
        return "does not hold", f"{interval} lies outside {wanted}"
    return "too few cells", f"{interval} lies partly in {wanted}"
