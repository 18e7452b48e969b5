"""A study that is ordered to stop ends once every training has saved its state, or has had time to."""

import pytest

from scale_ray.sweep import stopping
from scale_ray.sweep.stopping import StopOrdered, Stopping


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Ray's key-value store."""
    found: set[bytes] = set()
    monkeypatch.setattr(stopping, "_internal_kv_put", lambda key, value: found.add(key))
    monkeypatch.setattr(stopping, "_internal_kv_del", found.discard)
    monkeypatch.setattr(stopping, "_internal_kv_exists", found.__contains__)
    return found


def test_it_ends_when_all_that_train_have_saved(flags: set[bytes]) -> None:
    order = Stopping("flag")
    order.saved("a")  # a checkpoint as any other
    order.check({"a", "b"})
    assert not stopping.is_set("flag")
    order.begin()
    assert stopping.is_set("flag")
    order.check({"a", "b"})
    order.saved("a")
    order.check({"a", "b"})
    with pytest.raises(StopOrdered):
        order.check({"a"})  # the other has ended by itself
    order.saved("b")
    with pytest.raises(StopOrdered):
        order.check({"a", "b"})
    order.end()
    assert flags == set()


def test_what_trains_nothing_ends_at_once(flags: set[bytes]) -> None:
    order = Stopping("flag")
    order.begin()
    with pytest.raises(StopOrdered):
        order.check(set())


def test_a_training_that_saves_nothing_is_not_waited_for_without_end(flags: set[bytes]) -> None:
    moment = [0.0]
    order = Stopping("flag", clock=lambda: moment[0])
    order.begin()
    moment[0] = 100.0
    order.check({"hangs"})
    moment[0] = 121.0
    with pytest.raises(StopOrdered):
        order.check({"hangs"})
