"""Tidy frames of accuracies with known effects."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from scale_ray.report.effects.combinations import combinations

TERMS = ("ssl", "dist", "reg")
COMBINATIONS = list(combinations(TERMS))

Accuracy = Callable[[str, int, int], float]  # label, pair, seed


def cells_of(
    accuracy: Accuracy,
    pairs: int,
    seeds: int,
    labels: Iterable[str] = COMBINATIONS,
    backbone: str = "resnet50",
) -> pd.DataFrame:
    rows = [
        (label, backbone, f"pair{pair}", seed, accuracy(label, pair, seed))
        for label in labels
        for pair in range(pairs)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["label", "backbone", "pair", "seed", "accuracy"])


def keyed(values: np.ndarray) -> pd.DataFrame:
    """(pairs, seeds, columns) or (pairs, seeds) under a (pair, seed) index."""
    pairs, seeds = values.shape[:2]
    index = pd.MultiIndex.from_product([range(pairs), range(seeds)], names=["pair", "seed"])
    return pd.DataFrame(values.reshape(pairs * seeds, -1), index=index)


def studies(
    rng: np.random.Generator, pairs: int, seeds: int, between: float, number: int, skewed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Differences (pairs, seeds, number) of mean 0, sd `between` over pairs and 1 over seeds; the pairs' own means."""
    shape = (pairs, 1, number)
    effects = between * (rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape))
    return effects + rng.normal(size=(pairs, seeds, number)), effects.mean(axis=(0, 1))
