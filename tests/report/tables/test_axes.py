from collections.abc import Callable

import pytest
from report_stores import config_of

from scale_ray.config import TrialConfig
from scale_ray.report import Grid, ReportError, grids, load, tabulate
from scale_ray.store import Store

MAKE = Callable[..., Store]
BASE = config_of("mnist", "mnistm", "ce+ssl", "lenet", 0)
THRESHOLD = {0.8: 0.0, 0.85: 1.0, 0.9: 3.0}


@pytest.fixture
def store(make_store: MAKE) -> Store:
    """2 pairs x 3 thresholds x 2 backbones x 2 seeds."""
    outcomes: list[tuple[TrialConfig, float]] = []
    for source, ease in (("mnist", 80.0), ("fonts", 60.0)):
        for threshold, gain in THRESHOLD.items():
            for backbone, depth in (("resnet101", 5.0), ("resnet18", 0.0)):
                for seed in range(2):
                    changes = {"losses.threshold": threshold, "data.source": source, "model.backbone": backbone}
                    outcomes.append((BASE.replace(changes | {"seed": seed}), ease + gain + depth + 2 * seed))
    return make_store(outcomes)


def students(found: list[Grid]) -> list[Grid]:
    return [grid for grid in found if grid.metric == "target_accuracy"]


def test_a_field_by_a_word_and_a_facet(store: Store) -> None:
    found = students(tabulate(load(store.location), "losses.threshold", "model.backbone", "pair"))
    assert [grid.facet for grid in found] == ["pair=fonts>mnistm", "pair=mnist>mnistm"]
    fonts = found[0]
    assert (fonts.form, fonts.rows) == ("losses.threshold_by_model.backbone", ["0.8", "0.85", "0.9"])
    assert fonts.columns == ["resnet18", "resnet101"]
    assert fonts.entries["0.85", "resnet101"].mean == 67.0  # 60 + 1 + 5 and the mean of 0 and 2
    assert fonts.entries["0.85", "resnet101"].n == 2


def test_pairs_that_are_no_axis_are_averaged_within_a_seed(store: Store) -> None:
    (grid,) = students(tabulate(load(store.location), "backbone", "losses.threshold"))
    # Seeds: (83 + 63) / 2 = 73 and 75.
    assert grid.entries["resnet18", "0.9"].mean == 74.0
    assert grid.entries["resnet18", "0.9"].std == pytest.approx(2**0.5)
    assert "over 2 seeds of the mean over 2 pairs" in grid.notes[0]


def test_what_is_no_axis_and_differs_splits(store: Store) -> None:
    found = students(tabulate(load(store.location), "method", "pair"))
    assert {grid.facet for grid in found} == {
        f"backbone={backbone}, losses.threshold={threshold}"
        for backbone in ("resnet18", "resnet101")
        for threshold in THRESHOLD
    }
    (grid,) = [grid for grid in found if grid.facet == "backbone=resnet18, losses.threshold=0.8"]
    assert grid.columns == ["fonts>mnistm", "mnist>mnistm", "average"]
    assert [grid.entries["scale (ce+ssl)", column].mean for column in grid.columns] == [61.0, 81.0, 71.0]


def test_a_seed_an_axis_has_one_record_a_pair(store: Store) -> None:
    (grid,) = students(tabulate(load(store.location), "seed", "losses.threshold", "backbone"))[:1]
    assert grid.facet == "backbone=resnet101"
    assert {position: entry.mean for position, entry in grid.entries.items()} == {
        (str(seed), str(threshold)): 75.0 + gain + 2 * seed
        for seed in range(2)
        for threshold, gain in THRESHOLD.items()
    }
    assert not grid.best
    assert not any("best" in note for note in grid.notes)  # seeds are no rivals


def test_the_usual_tables_are_two_of_these(study_store: Store) -> None:
    cells = load(study_store.location)
    usual = next(grid for grid in grids(cells) if grid.form == "losses_by_backbone")
    made = next(grid for grid in tabulate(cells[cells["method"] != "dann"], "losses", "backbone"))
    assert made.entries == usual.entries
    assert made.notes == usual.notes


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (("losses.treshold", "pair"), "unknown axis 'losses.treshold': did you mean 'losses.threshold'"),
        (
            ("optim.steps", "pair"),
            r"optim.steps has one value in all cells: choose a field that differs \(pair, method",
        ),
        (("backbone", "model.backbone"), "one is named twice"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(store: Store, axes: tuple[str, str], words: str) -> None:
    with pytest.raises(ReportError, match=words):
        tabulate(load(store.location), *axes)
