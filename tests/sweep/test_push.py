"""Domains are put into the store before a study on a cluster; an order ends that between two shards."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_trial import TINY

from scale_ray.config import TrialConfig
from scale_ray.data.decoding import Decoding
from scale_ray.data.domain_files import domain_files
from scale_ray.data.shards import push
from scale_ray.store import Store
from scale_ray.sweep import push as pushing
from scale_ray.sweep.push import runner_of, share_data
from scale_ray.sweep.stopping import StopOrdered
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import alone


def test_an_order_ends_it_and_the_next_call_goes_on(tiny_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    stages = [alone(resolve(TrialConfig().replace(TINY), tiny_root))]

    def stop(written: int = 0) -> None:
        assert written > 0
        raise StopOrdered

    with pytest.raises(StopOrdered):
        share_data(stages, tiny_root, store, None, stop)
    (shard,) = tmp_path.glob("data/*/*.json")  # one, and not the description of a whole domain
    assert shard.stem.isdecimal()
    told: list[int] = []
    share_data(stages, tiny_root, store, None, told.append)
    assert len(list(tmp_path.glob("data/*/domain.json"))) == len(told) == 2
    assert sorted(bool(written) for written in told) == [False, True]


@pytest.mark.usefixtures("ray_without_cpus")
def test_an_order_ends_the_wait_for_a_node(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_ASK_SECONDS", 0.1)
    files = replace(domain_files("image_folder", "plain", tiny_root), anywhere=True)
    asked: list[int] = []

    def stop_after_three(written: int = 0) -> None:
        asked.append(written)
        if len(asked) == 3:
            raise StopOrdered

    with pytest.raises(StopOrdered):
        push(files, "image_folder", Decoding(16), Store(tmp_path, create=True), run=runner_of(files, stop_after_three))
    assert asked == [0, 0, 0]
