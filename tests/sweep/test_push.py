"""Domains are put into the store before a study on a cluster; an order ends that between two shards."""

from pathlib import Path

import pytest
from tiny_trial import TINY

from scale_ray.config import TrialConfig
from scale_ray.store import Store
from scale_ray.sweep.push import share_data
from scale_ray.sweep.stopping import StopOrdered
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import alone


def test_an_order_ends_it_and_the_next_call_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    stages = [alone(resolve(TrialConfig().replace(TINY), tiny_root))]

    def stop() -> None:
        raise StopOrdered

    with pytest.raises(StopOrdered):
        share_data(stages, tiny_root, store, None, stop)
    (shard,) = tmp_path.glob("data/*/*.json")  # one, and not the description of a whole domain
    assert shard.stem.isdecimal()
    written = shard.stat().st_mtime_ns
    asked: list[None] = []
    share_data(stages, tiny_root, store, None, lambda: asked.append(None))
    assert len(asked) == len(list(tmp_path.glob("data/*/domain.json"))) == 2
    assert shard.stat().st_mtime_ns == written
