"""Candidates: the methods and settings that were trained on the same domain pairs and seeds, with their scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.labels import PRE_TRAINING, by_method, count, method_labels
from scale_ray.report.read.load import varying_fields
from scale_ray.report.selection.set_validators import set_scores
from scale_ray.store import Store

SET = ["benchmark", "pre_training"]  # candidates are compared within one of these
SCORES = [*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES, ORACLE]
ESTIMATE = "ensv"  # its score is an estimate of the target accuracy
ALL_PAIRS = "all pairs"


@dataclass(frozen=True)
class Candidates:
    """Trainings that can be compared, with their scores.

    Attributes:
        trainings: one row each: benchmark, pre_training, pair, seed, candidate (a text: method, loss combination, and
            what else differs), kind (method and loss combination alone), cell, unlearned (see `unlearned.RULE`), and a
            column for each name in SCORES; `oracle` is the target accuracy. On each pair every candidate has the same
            seeds.
        lacking: cells whose predictions are not stored, so that their pair and seed has no score of a set.
        notes: which candidates were left out.
        tried: benchmark, pre_training, pair and candidate of all, those that were left out too.
    """

    trainings: pd.DataFrame
    lacking: list[str]
    notes: list[str]
    tried: pd.DataFrame

    def cells_of(self, benchmark: str, backbone: str, pair: str, candidate: str) -> list[str]:
        """Ids of a candidate's cells on a pair, or on ALL_PAIRS."""
        rows = self.trainings
        chosen = (rows[SET] == [benchmark, backbone]).all(axis=1) & (rows["candidate"] == candidate)
        if pair != ALL_PAIRS:
            chosen &= rows["pair"] == pair
        return sorted(rows.loc[chosen, "cell"])

    def tried_on(self, benchmark: str, backbone: str, pair: str) -> int:
        """How many candidates have a training on a pair, or on any for ALL_PAIRS."""
        rows = self.tried[(self.tried[SET] == [benchmark, backbone]).all(axis=1)]
        return int((rows if pair == ALL_PAIRS else rows[rows["pair"] == pair])["candidate"].nunique())

    def compared(self) -> Iterator[tuple[tuple[str, str], str, pd.DataFrame]]:
        """Yield (set, pair, means): for each pair of a set, then for ALL_PAIRS if it has several.

        The means are over seeds, one row per candidate, with the columns SCORES, `seeds` (how many) and `estimated
        regret`. Those of ALL_PAIRS are means over pairs, of the candidates that every pair has.
        """
        for set_, part in self.trainings.groupby(SET, sort=False):
            of_pairs = []
            for pair, share in part.groupby("pair"):
                seeds = share["seed"].nunique()
                # A score that one seed lacks is missing, and not the mean of the others.
                means = share.groupby("candidate", sort=False)[SCORES].sum(min_count=seeds) / seeds
                means["seeds"] = seeds
                means["estimated regret"] = means[ESTIMATE].max() - means[ESTIMATE]
                of_pairs.append(means)
                yield (str(set_[0]), str(set_[1])), str(pair), means
            everywhere = [name for name in of_pairs[0].index if all(name in means.index for means in of_pairs)]
            if len(of_pairs) > 1 and everywhere:
                total = sum(means.loc[everywhere] for means in of_pairs[1:]) + of_pairs[0].loc[everywhere]
                yield (str(set_[0]), str(set_[1])), ALL_PAIRS, total / len(of_pairs)


def candidates(cells: pd.DataFrame, store: Store | None) -> Candidates:
    """The candidates among done cells.

    A candidate that lacks a seed on a pair which another one has is left out on that pair, and a note says so.

    Args:
        cells: of those that `completeness.check` returns, the done ones.
        store: may hold their predictions; None leaves out the scores of sets, for which they would be read.

    Raises:
        StoreError: stored predictions are damaged, or not of their record.
        ReportError: nothing is done, or candidates were trained on different data.
    """
    if cells.empty:
        raise ReportError("no cell is done, so there is nothing to choose from: run the study first")
    parts, tried, notes = [], [], []
    for _, part in cells.groupby(SET, sort=False):
        part = part.assign(kind=method_labels(part))
        part = part.assign(candidate=_with_settings(part))
        tried.append(part[[*SET, "pair", "candidate"]].drop_duplicates())
        part, left_out = _complete(part)
        parts.append(part)
        notes += left_out
    trainings = pd.concat(parts, ignore_index=True)
    trainings = trainings.rename(columns={f"validator_{name}": name for name in VALIDATOR_NAMES})
    trainings[ORACLE] = trainings["target_accuracy"]
    stored = set() if store is None else set(store.predictions_ids())
    lacking = [cell for cell in trainings["cell"] if cell not in stored]
    for name in SET_VALIDATOR_NAMES:
        trainings[name] = float("nan")
    for _, group in trainings.groupby([*SET, "pair", "seed"], sort=False):
        if store is not None and not set(lacking).intersection(group["cell"]):
            scores = set_scores(store, list(store.records(group["cell"]))) or {}
            for name, values in scores.items():
                trainings.loc[group.index, name] = values
    columns = [*SET, "pair", "seed", "candidate", "kind", "cell", "unlearned", *SCORES]
    return Candidates(trainings[columns], lacking, notes, pd.concat(tried, ignore_index=True))


def _with_settings(part: pd.DataFrame) -> pd.Series:
    """The kinds, with the fields in which trainings of one kind differ: `scale (ce+ssl), losses.threshold=0.9`."""
    fields = [
        name
        for name in varying_fields(part)
        if name not in PRE_TRAINING and part.groupby("kind")[name].nunique(dropna=False).max() > 1
    ]
    texts = part["kind"]
    for name in fields:
        texts = texts + f", {name}=" + part[name].astype("str")
    return texts


def _complete(part: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The trainings of those candidates that have all seeds of a pair, pair by pair, and notes on the others."""
    wanted = part.groupby("pair")["seed"].transform("nunique")
    found = part.groupby(["pair", "candidate"])["seed"].transform("nunique")
    missing = part[found < wanted].groupby(["pair", "candidate"], sort=False)["seed"].nunique().reset_index()
    notes = [
        f"Left out on {pair}: {candidate}, with {count(number, 'seed')} only."
        for pair, candidate, number in zip(*(missing[name] for name in missing), strict=True)
    ]
    kept = part[found == wanted]
    place = {candidate: index for index, candidate in enumerate(sorted(kept["candidate"].unique(), key=by_method))}
    kept = kept.assign(place=kept["candidate"].map(place)).sort_values(["pair", "place", "seed"])
    return kept.drop(columns="place"), notes
