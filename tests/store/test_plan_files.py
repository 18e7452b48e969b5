"""A plan's file has each config once, and gives the plan back."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.store import PlanFile, Store, StoreError, StudyPlan
from scale_ray.study import Until

BASE = TrialConfig()
CHANGES = st.sampled_from(
    [
        {},
        {"losses.threshold": 0.9},
        {"method": "dann"},
        {"model.backbone": "resnet18"},
        {"views.crop_scale": (0.2, 1.0)},
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CELLS = st.lists(
    st.tuples(CHANGES, st.integers(0, 2**31 - 1), st.dictionaries(TEXTS, TEXTS, max_size=2)), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=100)
@given(CELLS, st.one_of(st.none(), TEXTS, st.just("a --set 'x=[\n 1,\n  2\n ]'")))
def test_a_file_gives_the_plan_back(
    cells: list[tuple[dict[str, object], int, dict[str, str]]], command: str | None
) -> None:
    plan = StudyPlan(
        name="s",
        created="2026",
        cells=[
            Cell(id=f"{number:064x}", config=BASE.replace(changes | {"seed": seed}), inputs=inputs)
            for number, (changes, seed, inputs) in enumerate(cells)
        ],
        until=Until(half_width=1.0),
        command=command,
    )
    file = PlanFile.of(plan)
    read = PlanFile.read(file.content())
    assert read == file
    assert read.plan() == plan
    assert len(file.configs) == len({json.dumps(changes) for changes, _, _ in cells})


def test_a_cell_is_one_line_and_seeds_share_their_config(tmp_path: Path) -> None:
    cells = [
        Cell(id=f"{seed:064x}", config=BASE.replace({"seed": seed}), inputs={"source": "abc"}) for seed in range(3)
    ]
    store = Store(tmp_path, create=True)
    store.write_plan(StudyPlan(name="s", created="2026", cells=cells))
    text = (tmp_path / "studies" / "s.json").read_text()
    assert [f'["{seed:064x}", 0, {seed}, 0]' in text for seed in range(3)] == [True] * 3
    assert text.count('"threshold"') == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cells": [["a", 1, 0, 0]]}, "cell a has a config or inputs that are not there"),
        ({"cells": [["a", 0, 0, 1]]}, "cell a has a config or inputs that are not there"),
        ({"cells": [["a", 0, -1, 0]]}, "cells.0.2: Input should be greater than or equal to 0"),
        ({"configs": [{"optim": {"steps": -1}}]}, "optim.steps"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    store = Store(tmp_path, create=True)
    store.write_plan(StudyPlan(name="s", created="2026", cells=[Cell(id="a", config=BASE)]))
    path = tmp_path / "studies" / "s.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=rf"^{path}: not a study plan \(.*{words}"):
        store.plans()
