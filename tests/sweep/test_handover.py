"""A stage that is handed over arrives as it was."""

import pytest
from field_changes import CHANGES
from hypothesis import given
from hypothesis import strategies as st
from ray.experimental.internal_kv import _internal_kv_list

from scale_ray.cell import Cell
from scale_ray.config import ConfigError, TrialConfig
from scale_ray.stage import Stage
from scale_ray.sweep import handover


def changed(paths: list[str]) -> TrialConfig:
    config = TrialConfig()
    for path in paths:
        try:
            config = config.replace({path: CHANGES[path]})
        except ConfigError:  # some exclude others
            continue
    return config


@given(st.lists(st.sampled_from(sorted(CHANGES)), unique=True, max_size=15), st.floats(1e-12, 1, exclude_max=True))
def test_it_arrives_bit_for_bit(paths: list[str], threshold: float) -> None:
    config = changed(paths).replace({"losses.threshold": threshold})
    cells = tuple(Cell(id=f"{number}", config=config, inputs={"source": "a", "target": "b"}) for number in range(2))
    stage = Stage("k", config, 3, 10, "parent", {"z": "1", "a": "2"}, cells[:1], cells, "ce")
    arrived = handover._STAGE.validate_json(handover._STAGE.dump_json(stage))
    assert arrived == stage
    assert list(arrived.digests) == ["z", "a"]  # the source comes first
    assert type(arrived.ends) is type(arrived.waiting) is tuple


@pytest.mark.usefixtures("ray_without_cpus")
def test_each_run_has_its_own_and_nothing_stays() -> None:
    runs = [handover.Handover() for _ in range(2)]
    stages = [Stage("k", TrialConfig(), 0, last, None, {}, (), ()) for last in (1, 2)]
    for run, stage in zip(runs, stages, strict=True):
        run.give(stage)
    for run, stage in zip(runs, stages, strict=True):
        assert handover.handed_over(run.name, "k") == stage
        run.take_back("k")
    assert _internal_kv_list("scale_ray:") == []
