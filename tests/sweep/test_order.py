"""The order of stages in a run that may end before all of them are trained."""

from itertools import permutations

from grids import ablation
from hypothesis import given
from hypothesis import strategies as st

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.stage import Stage
from scale_ray.sweep.order import baseline_of, seed_after_seed
from scale_ray.training.stages import stage_tree

BASE = TrialConfig().replace({"data.benchmark": "digits", "optim.steps": 400, "optim.warmup_steps": 99})
COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+ssl+dist+reg"]
PAIRS = list(permutations(["mnist", "optdigits", "mnistm"], 2))


def cells(losses: list[str], seeds: int, pairs: list[tuple[str, str]]) -> list[Cell]:
    configs = ablation(BASE, pairs, losses, seeds=range(seeds)).cells()
    return [
        Cell(id=f"cell {number}", config=config, inputs={"source": config.data.source, "target": config.data.target})
        for number, config in enumerate(configs)
    ]


def told(stages: list[Stage]) -> list[str]:
    """Seed, approach and the first pair of the cells that end in each stage."""
    return [
        f"{cell.config.seed} {cell.config.approach} {cell.config.pair}" for stage in stages for cell in stage.ends[:1]
    ]


def test_a_seed_is_finished_before_the_next_and_the_baseline_leads() -> None:
    planned = cells(["ce+ssl", "ce"], 2, [("mnist", "mnistm"), ("optdigits", "mnist")])
    assert told(seed_after_seed(stage_tree(planned), planned)) == [
        f"{seed} {losses} {pair}"
        for seed in (0, 1)
        for losses in ("ce", "ce+ssl")
        for pair in ("mnist>mnistm", "optdigits>mnist")
    ]


def test_a_named_baseline_leads() -> None:
    planned = cells(["ce", "ce+ssl", "ce+dist"], 1, [("mnist", "mnistm")])
    order = told(seed_after_seed(stage_tree(planned), planned, "ce+dist"))
    assert [line.split()[1] for line in order] == ["ce+dist", "ce", "ce+ssl"]
    assert baseline_of(["mcc", "dann"]) == "mcc"


@given(
    st.lists(st.sampled_from(COMBINATIONS), min_size=1, unique=True),
    st.integers(1, 3),
    st.lists(st.sampled_from(PAIRS), min_size=1, unique=True),
)
def test_the_same_stages_each_after_its_parent(losses: list[str], seeds: int, pairs: list[tuple[str, str]]) -> None:
    planned = cells(losses, seeds, pairs)
    tree = stage_tree(planned)
    order = seed_after_seed(tree, planned)
    assert sorted(stage.key for stage in order) == sorted(stage.key for stage in tree)
    place = {stage.key: number for number, stage in enumerate(order)}
    assert all(stage.parent is None or place[stage.parent] < place[stage.key] for stage in order)
    first_seeds = [min(cell.config.seed for cell in stage.waiting) for stage in order]
    assert first_seeds == sorted(first_seeds)
