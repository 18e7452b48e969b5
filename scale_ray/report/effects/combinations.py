"""Combinations of loss terms: which terms occur, and the factorial over them. ce is in every combination."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from scale_ray.config import LossesConfig


def is_combination(label: str) -> bool:
    """Whether a label is a combination of unweighted terms: `ce+ssl`, but neither `ce+0.5*ssl` nor `dann (ce)`."""
    return label.split("+")[0] == "ce" and not {"*", " "} & set(label)


def optional_terms(labels: Iterable[str]) -> tuple[str, ...]:
    """The terms besides ce that occur in the combinations among `labels`, in the order in which configs write them."""
    found = {term for label in labels if is_combination(label) for term in label.split("+")}
    return tuple(LossesConfig(terms=dict.fromkeys({"ce", *found}, 1.0)).terms)[1:]


def subsets(terms: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All 2^n subsets, the smallest first."""
    for size in range(len(terms) + 1):
        yield from itertools.combinations(terms, size)


def combination(subset: Iterable[str]) -> str:
    """`ce+ssl+reg` for (`ssl`, `reg`): the label of terms given in the order of `optional_terms`."""
    return "+".join(["ce", *subset])


def combinations(terms: Sequence[str]) -> Iterator[str]:
    """The labels of the full factorial, the smallest combinations first."""
    return map(combination, subsets(terms))
