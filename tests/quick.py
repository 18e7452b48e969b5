"""Families of tests of which some members are quick ones."""

from collections.abc import Collection, Iterable

import pytest


def slow_but(quick: Collection[str], names: Iterable[str]) -> list[object]:
    """The names as parameters: all but the quick ones are slow."""
    family = list(names)
    assert set(quick) <= set(family), "a quick one has another name now"
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in family]
