"""Who may train how much at once: hand-computed cases, and what holds for any claims."""

from hypothesis import given
from hypothesis import strategies as st

from scale_ray.service.places import Claim, Most, allot

ONE = {"CPU": 1.0}


def claim(
    study: str,
    owner: str = "ann",
    *,
    priority: int = 0,
    share: float = 1.0,
    wants: int = 10,
    since: float = 0.0,
    bundle: dict[str, float] | None = None,
) -> Claim:
    return Claim(study, owner, priority, share, wants, bundle or ONE, since)


def test_two_studies_of_one_priority_get_half_each_and_the_earlier_one_the_odd_place() -> None:
    assert allot([claim("a", since=1), claim("b", since=0)], {"CPU": 5}, {}) == {"a": 2, "b": 3}


def test_places_are_in_proportion_to_shares() -> None:
    assert allot([claim("a", share=3), claim("b")], {"CPU": 8}, {}) == {"a": 6, "b": 2}


def test_what_one_study_does_not_want_the_other_gets() -> None:
    assert allot([claim("a", wants=1), claim("b")], {"CPU": 6}, {}) == {"a": 1, "b": 5}


def test_a_higher_priority_is_served_first() -> None:
    claims = [claim("low", since=0), claim("high", priority=1, wants=3, since=9)]
    assert allot(claims, {"CPU": 4}, {}) == {"low": 1, "high": 3}
    assert allot(claims, {"CPU": 2}, {}) == {"low": 0, "high": 2}


def test_with_a_quota_of_one_place_each_neither_owner_waits_for_the_other() -> None:
    claims = [claim("a", "ann", since=0), claim("b", "ben", since=1)]
    assert allot(claims, {"CPU": 2}, {"ann": Most(places=1), "ben": Most(places=1)}) == {"a": 1, "b": 1}
    assert allot(claims[:1], {"CPU": 2}, {"ann": Most(places=1)}) == {"a": 1}


def test_a_quota_of_gpus_counts_what_a_training_holds() -> None:
    half = {"CPU": 1.0, "GPU": 0.5}
    assert allot([claim("a", bundle=half)], {"CPU": 16, "GPU": 4}, {"ann": Most(gpus=1)}) == {"a": 2}


def test_a_study_that_fits_nowhere_keeps_no_place_from_another() -> None:
    claims = [claim("large", priority=5, bundle={"CPU": 8.0}), claim("small")]
    assert allot(claims, {"CPU": 4}, {}) == {"large": 0, "small": 4}


CLAIMS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "ben", "cem"]),
        st.integers(-2, 2),
        st.sampled_from([0.5, 1.0, 3.0]),
        st.integers(0, 6),
        st.sampled_from([{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0, "GPU": 1.0}]),
    ),
    max_size=6,
).map(lambda found: [Claim(str(number), *values, float(number)) for number, values in enumerate(found)])
MOST = st.dictionaries(
    st.sampled_from(["ann", "ben"]), st.builds(Most, st.none() | st.integers(0, 3), st.none() | st.integers(0, 2))
)


@given(CLAIMS, st.integers(0, 8), st.integers(0, 3), MOST)
def test_resources_wants_and_quotas_hold_and_nothing_usable_stays_free(
    claims: list[Claim], cpus: int, gpus: int, most: dict[str, Most]
) -> None:
    capacity = {"CPU": float(cpus), "GPU": float(gpus)}
    given_ = allot(claims, capacity, most)
    used = {name: sum(given_[each.study] * each.bundle.get(name, 0) for each in claims) for name in capacity}
    assert all(used[name] <= capacity[name] + 1e-9 for name in capacity)
    for each in claims:
        assert 0 <= given_[each.study] <= each.wants
        own = [other for other in claims if other.owner == each.owner]
        places = sum(given_[other.study] for other in own)
        held = sum(given_[other.study] * other.bundle.get("GPU", 0) for other in own)
        limit = most.get(each.owner, Most())
        assert limit.places is None or places <= limit.places
        assert limit.gpus is None or held <= limit.gpus
        one_more = (
            given_[each.study] < each.wants
            and all(used[name] + amount <= capacity[name] for name, amount in each.bundle.items())
            and (limit.places is None or places < limit.places)
            and (limit.gpus is None or held + each.bundle.get("GPU", 0) <= limit.gpus)
        )
        assert not one_more


@given(CLAIMS, st.integers(0, 8))
def test_a_study_never_gets_less_because_its_priority_rises(claims: list[Claim], cpus: int) -> None:
    capacity = {"CPU": float(cpus), "GPU": 2.0}
    for each in claims:
        raised = [
            Claim(*other[:2], 9, *other[3:]) if other[0] == each.study else Claim(*other) for other in tuples(claims)
        ]
        assert allot(raised, capacity, {})[each.study] >= allot(claims, capacity, {})[each.study]


def tuples(claims: list[Claim]) -> list[tuple]:
    return [(each.study, each.owner, each.priority, each.share, each.wants, each.bundle, each.since) for each in claims]
