"""Who may train how much at once: priority first, then a fair share, within every owner's quota.

A pure function of claims, so that every rule can be tested by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What a study asks for.

    Attributes:
        share: its weight among studies of the same priority.
        wants: trainings that it could run at once.
        bundle: resource -> amount that one training holds.
        since: when it was submitted; of equals, the earlier one comes first.
    """

    study: str
    owner: str
    priority: int
    share: float
    wants: int
    bundle: Mapping[str, float]
    since: float


@dataclass(frozen=True)
class Most:
    """What all studies of an owner may hold together; None: no limit."""

    places: int | None = None
    gpus: float | None = None


def allot(claims: Sequence[Claim], capacity: Mapping[str, float], most: Mapping[str, Most]) -> dict[str, int]:
    """Trainings that every study may run at once: their resources fit into the capacity together.

    A higher priority is served before a lower one. Within a priority, places go one by one to the study that has the
    least for its share (weighted max-min fairness: Demers, Keshav and Shenker, 1989). No place stays free that a claim
    may use.

    Args:
        claims: one for each study.
        capacity: resource -> amount that there is.
        most: owner -> the most that the owner may have; no entry: no limit.

    Returns:
        Study -> number.
    """
    given = {claim.study: 0 for claim in claims}
    free = dict(capacity)
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        level = [claim for claim in claims if claim.priority == priority]
        while True:
            held = _held(claims, given)
            hungry = [
                claim
                for claim in level
                if given[claim.study] < claim.wants
                and all(free.get(name, 0) + 1e-9 >= amount for name, amount in claim.bundle.items())
                and _may_have_one_more(claim, most.get(claim.owner, Most()), held)
            ]
            if not hungry:
                break
            first = min(hungry, key=lambda claim: ((given[claim.study] + 1) / claim.share, claim.since, claim.study))
            given[first.study] += 1
            for name, amount in first.bundle.items():
                free[name] -= amount
    return given


def _held(claims: Sequence[Claim], given: Mapping[str, int]) -> dict[str, tuple[int, float]]:
    """Owner -> (places, GPUs) so far."""
    held: dict[str, tuple[int, float]] = {}
    for claim in claims:
        places, gpus = held.get(claim.owner, (0, 0.0))
        number = given[claim.study]
        held[claim.owner] = (places + number, gpus + number * claim.bundle.get("GPU", 0.0))
    return held


def _may_have_one_more(claim: Claim, most: Most, held: Mapping[str, tuple[int, float]]) -> bool:
    places, gpus = held[claim.owner]
    enough_places = most.places is None or places < most.places
    return enough_places and (most.gpus is None or gpus + claim.bundle.get("GPU", 0.0) <= most.gpus + 1e-9)
