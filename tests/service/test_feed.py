"""A page that is told every change has, at any time, the state of the study."""

import json

from hypothesis import given
from hypothesis import strategies as st

from scale_ray.service import feed as feed_module
from scale_ray.service.feed import Feed
from scale_ray.service.watch import CellState

STATES = st.sampled_from([CellState("waiting"), CellState("running", 41.5, share=0.5), CellState("done", 60.0)])
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), STATES, st.integers(0, 2), st.lists(st.integers(0, 2), max_size=3)), max_size=30
)


@given(STEPS, st.integers(1, 4))
def test_pages_that_look_now_and_then_have_the_state(
    steps: list[tuple[str, CellState, int, list[int]]], kept: int
) -> None:
    study, cells = {"study": {"done": 0}}, {name: CellState("waiting") for name in "abc"}
    before, feed_module._KEPT = feed_module._KEPT, kept
    try:
        feed = Feed(lambda: {"study": dict(study["study"])}, lambda: dict(cells))
    finally:
        feed_module._KEPT = before
    pages: list[tuple[int, dict[str, object], dict[str, object]]] = [(0, {}, {})] * 3
    for name, state, done, looking in steps:
        cells[name], study["study"] = state, {"done": done}
        feed.refresh()
        for page in looking:
            version, told, known = pages[page]
            version, changes = feed.since(version)
            for change in map(json.loads, changes):
                told, known = change["study"], {**known, **change["cells"]}
            pages[page] = version, told, known
            assert told == study["study"]
            assert known == {each: feed_module.told(found) for each, found in cells.items()}
            assert feed.since(version) == (version, [])


def test_what_has_not_changed_is_not_told() -> None:
    cells = {"a": CellState("waiting"), "b": CellState("done", 61.25, 90.0)}
    feed = Feed(lambda: {"study": {}}, lambda: dict(cells))
    feed.refresh()
    version, (whole,) = feed.since(0)
    assert json.loads(whole)["cells"] == {
        "a": {"status": "waiting"},
        "b": {"status": "done", "accuracy": 61.25, "source_val": 90.0},
    }
    feed.refresh()
    assert feed.since(version) == (version, [])
    cells["a"] = CellState("failed", cause="ValueError: no")
    feed.refresh()
    _, (change,) = feed.since(version)
    assert json.loads(change)["cells"] == {"a": {"status": "failed", "cause": "ValueError: no"}}
