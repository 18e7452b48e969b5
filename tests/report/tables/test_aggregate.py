import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_stores import config_of, digests, record_of

from scale_ray.config import TrialConfig
from scale_ray.report import Grid, ReportError, grids, load
from scale_ray.report.tables.uncertainty import significantly_above
from scale_ray.store import Store

MAKE = Callable[..., Store]


def one(found: list[Grid], form: str = "losses_by_backbone", metric: str = "target_accuracy", facet: str = "") -> Grid:
    (grid,) = [grid for grid in found if (grid.form, grid.metric, grid.facet) == (form, metric, facet)]
    return grid


def scale(pair: str, seed: int, losses: str = "ce+ssl", backbone: str = "lenet") -> TrialConfig:
    return config_of(pair, "mnistm", losses, backbone, seed)


def grids_of(store: Store) -> list[Grid]:
    return grids(load(store.location))


def test_pairs_are_averaged_within_a_seed_before_seeds(make_store: MAKE) -> None:
    figures = {("mnist", 0): 90.0, ("fonts", 0): 70.0, ("mnist", 1): 94.0, ("fonts", 1): 74.0}
    found = grids_of(make_store([(scale(*key), value) for key, value in figures.items()]))
    # Seeds: (90 + 70) / 2 = 80 and (94 + 74) / 2 = 84: mean 82, sample standard deviation sqrt(2 * 2^2 / 1) = 2.828…
    # Over the four figures it would be 11.5: differences between pairs are not spread over seeds.
    table_1 = one(found).entries["ce+ssl", "lenet"]
    assert (table_1.mean, table_1.n, table_1.planned) == (82.0, 2, 4)
    assert table_1.std == pytest.approx(8**0.5)
    table_2 = one(found, "pairs_by_method")
    assert table_2.columns == ["fonts>mnistm", "mnist>mnistm", "average"]
    assert table_2.entries["scale (ce+ssl)", "mnist>mnistm"].mean == 92.0
    assert table_2.entries["scale (ce+ssl)", "average"] == table_1
    assert one(found, metric="teacher_accuracy").entries["ce+ssl", "lenet"].mean == 81.0
    assert one(found, metric="source_val_accuracy").entries["ce+ssl", "lenet"].mean == 99.0


def test_compared_cells_average_the_same_keys_and_the_note_says_what_was_left_out(make_store: MAKE) -> None:
    outcomes: list[tuple[TrialConfig, float | None]] = [(scale("mnist", seed), 80.0 + seed) for seed in range(3)]
    outcomes += [(scale("mnist", seed, "ce+ssl+dist"), None if seed == 2 else 90.0) for seed in range(3)]
    grid = one(grids_of(make_store(outcomes)))
    assert grid.entries["ce+ssl", "lenet"].mean == 80.5  # without seed 2
    failed = grid.entries["ce+ssl+dist", "lenet"]
    assert (failed.mean, failed.n, failed.done, failed.failed) == (90.0, 2, 2, 1)
    notes = "\n".join(grid.notes)
    assert "1 of 3 (pair, seed) keys left out" in notes
    assert "mnist>mnistm seed 2 (ce+ssl+dist / lenet failed)" in notes
    assert "† 1 of 3 failed: ce+ssl+dist / lenet." in notes


def test_a_row_without_any_result_does_not_empty_the_others(make_store: MAKE) -> None:
    grid = one(grids_of(make_store([(scale("mnist", 0), 80.0), (scale("mnist", 0, "ce+reg"), None)])))
    assert grid.entries["ce+ssl", "lenet"].mean == 80.0
    assert grid.entries["ce+ssl", "lenet"].std is None
    assert grid.entries["ce+reg", "lenet"].mean is None


def test_cells_with_nothing_in_common_are_not_averaged(make_store: MAKE) -> None:
    grid = one(grids_of(make_store([(scale("mnist", 0), 80.0), (scale("mnist", 1, "ce+reg"), 60.0)])))
    assert {entry.mean for entry in grid.entries.values()} == {None}
    assert "2 of 2 (pair, seed) keys left out" in grid.notes[0]
    assert "not planned" in grid.notes[0]


def test_seeds_over_different_pairs_are_pointed_out(make_store: MAKE) -> None:
    outcomes = [(scale("mnist", 0), 80.0), (scale("fonts", 0), 60.0), (scale("mnist", 1), 82.0)]
    grid = one(grids_of(make_store(outcomes, planned=[scale("fonts", 1)])))
    assert any("the seeds do not average the same pairs" in note for note in grid.notes)


def test_nothing_done_is_a_grid_of_holes(make_store: MAKE) -> None:
    found = grids_of(make_store([], planned=[scale("mnist", seed) for seed in range(3)]))
    assert len(found) == 6
    for grid in found:
        assert [(entry.mean, entry.missing) for entry in grid.entries.values()] == [(None, 3)]


def test_other_pre_training_is_another_table_or_another_group(make_store: MAKE) -> None:
    """Also where it follows from the method or from the backbone."""
    outcomes = [(scale("mnist", 0), 80.0), (scale("mnist", 0, backbone="resnet18"), 85.0)]
    pretrained = {"model.weights": "imagenet"}
    outcomes += [(config_of("mnist", "mnistm", "ce", "resnet18", 0, "dann", **pretrained), 90.0)]
    outcomes += [(config_of("mnist", "mnistm", "ce", "resnet50", 0, **pretrained), 95.0)]
    found = [grid for grid in grids_of(make_store(outcomes)) if grid.metric == "target_accuracy"]
    positions = {
        (grid.form, grid.facet.partition(",")[0]): {
            position for position, entry in grid.entries.items() if entry.planned
        }
        for grid in found
        if grid.form == "losses_by_backbone"
    }
    assert positions == {
        ("losses_by_backbone", "model.weights=none"): {("ce+ssl", "lenet"), ("ce+ssl", "resnet18")},
        ("losses_by_backbone", "model.weights=imagenet"): {("ce", "resnet50")},
    }
    assert {(grid.facet, grid.group): grid.rows for grid in found if grid.form == "pairs_by_method"} == {
        ("", "lenet, random weights"): ["scale (ce+ssl)"],
        ("", "resnet18, imagenet"): ["dann"],
        ("", "resnet18, random weights"): ["scale (ce+ssl)"],
        ("", "resnet50, imagenet"): ["source_only"],
    }


def test_source_only_is_the_row_ce_and_other_methods_stay_out_of_table_1(make_store: MAKE) -> None:
    outcomes = [(scale("mnist", 0, "ce"), 40.0), (scale("mnist", 0), 80.0)]
    outcomes += [(config_of("mnist", "mnistm", "ce", "lenet", 0, method="dann"), 60.0)]
    found = grids_of(make_store(outcomes))
    assert one(found).rows == ["ce", "ce+ssl"]
    assert one(found, "pairs_by_method").rows == ["source_only", "dann", "scale (ce+ssl)"]


def test_source_only_and_scale_with_ce_alone_are_two_rows(make_store: MAKE) -> None:
    outcomes = [(scale("mnist", 0, "ce"), 40.0), (config_of("mnist", "mnistm", "ce", "lenet", 0, method="scale"), 41.0)]
    grid = one(grids_of(make_store(outcomes)))
    assert {row: grid.entries[row, "lenet"].mean for row in grid.rows} == {"ce": 40.0, "ce (scale)": 41.0}


def test_rows_and_columns_are_in_reading_order(make_store: MAKE) -> None:
    combinations = ["ce+ssl+dist+reg", "ce+dist", "ce+reg", "ce", "ce+ssl", "ce+ssl+reg"]
    backbones = ["resnet101", "resnet50", "resnet152"]
    planned = [scale("mnist", 0, losses, backbone) for losses in combinations for backbone in backbones]
    grid = one(grids_of(make_store([], planned=planned)))
    assert grid.rows == ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+reg", "ce+ssl+dist+reg"]
    assert grid.columns == ["resnet50", "resnet101", "resnet152"]


def test_a_field_that_varies_splits_the_grids_instead_of_being_averaged(make_store: MAKE) -> None:
    outcomes = [
        (scale("mnist", seed).replace({"losses.threshold": threshold}), value + seed)
        for threshold, value in ((0.8, 80.0), (0.9, 90.0))
        for seed in range(2)
    ]
    found = grids_of(make_store(outcomes))
    for facet, mean in (("losses.threshold=0.8", 80.5), ("losses.threshold=0.9", 90.5)):
        assert one(found, facet=facet).entries["ce+ssl", "lenet"].mean == mean


def test_a_field_that_follows_from_the_row_is_noted_and_does_not_split(make_store: MAKE) -> None:
    long = scale("mnist", 0, "ce").replace({"optim.steps": 900})
    grid = one(grids_of(make_store([(long, 40.0), (scale("mnist", 0), 80.0)])))
    assert grid.rows == ["ce", "ce+ssl"]
    assert "Methods, combinations or backbones differ in optim.steps as well: 600, 900." in grid.notes


def test_benchmarks_have_grids_of_their_own(make_store: MAKE) -> None:
    other = scale("mnist", 0).replace({"data.benchmark": "pacs"})
    found = grids_of(make_store([(scale("mnist", 0), 80.0), (other, 50.0)]))
    means = {
        grid.benchmark: grid.entries["ce+ssl", "lenet"].mean for grid in found if grid.form == "losses_by_backbone"
    }
    assert set(means) == {"digits", "pacs"}
    assert len(found) == 12


def test_two_data_versions_of_one_cell_are_refused(make_store: MAKE) -> None:
    config = scale("mnist", 0)
    store = make_store([(config, 80.0)])
    other = record_of(config, 70.0, inputs=digests(config) | {"source": "sha-other"})
    store.write_record(other)
    with pytest.raises(ReportError, match=re.escape(other.id)):
        grids_of(store)


def test_no_three_differences_hold_up_however_large() -> None:
    assert not significantly_above([90.0, 91.0, 92.0], [10.0, 11.0, 12.0])
    assert not significantly_above([90.0] * 5, [10.0, 11.0, 12.0, 13.0, 14.0])  # least p: 2 / 2^5 = 0.0625


def test_six_differences_of_one_sign_hold_up_and_five_of_six_do_not() -> None:
    other = [80.0, 81.0, 82.0, 83.0, 84.0, 85.0]
    above = [value + 1 + index / 10 for index, value in enumerate(other)]
    assert significantly_above(above, other)  # 2 / 2^6 = 0.031
    assert not significantly_above(other, above)
    assert not significantly_above([other[0] - 3, *above[1:]], other)
    assert not significantly_above([other[0], *above[1:]], other)  # a tie says nothing: five are left


@settings(deadline=None)
@given(
    differences=st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=20),
    base=st.floats(0, 50, allow_nan=False),
)
def test_of_two_at_most_one_is_better(differences: list[float], base: float) -> None:
    first, second = [base + difference for difference in differences], [base] * len(differences)
    assert not (significantly_above(first, second) and significantly_above(second, first))
    assert not significantly_above(first, first)


def test_the_best_is_marked_if_it_is_significant_and_a_note_says_how(make_store: MAKE) -> None:
    outcomes = [
        (scale(pair, seed, losses), 70.0 + seed * 1.5 + gain + (0.3 * seed if losses == "ce+ssl+dist" else 0.0))
        for pair in ("mnist", "fonts")
        for seed in range(3)
        for losses, gain in (("ce+ssl", 0.0), ("ce+ssl+dist", 2.0))
    ]
    found = grids_of(make_store(outcomes))
    grid = one(found)
    assert grid.best == {("ce+ssl+dist", "lenet")}
    bold = "Bold: the highest of its column, significantly above the second ("
    assert any(note.startswith(bold) for note in grid.notes)
    of_pairs = one(found, "pairs_by_method")
    assert of_pairs.best == {("scale (ce+ssl+dist)", "average")}  # a pair alone has three keys
    assert any("fewer than 6 (pair, seed) keys" in note and "mnist>mnistm (3)" in note for note in of_pairs.notes)
    assert one(found, metric="source_val_accuracy").best == frozenset()  # all 99
    assert any("do not differ significantly" in note for note in one(found, metric="source_val_accuracy").notes)


def test_an_entry_names_its_trials(study_store: Store) -> None:
    cells = load(study_store.location)
    grid = one(grids(cells))
    for (row, column), entry in grid.entries.items():
        of_entry = cells[(cells["losses"] == row) & (cells["backbone"] == column) & cells["method"].ne("dann")]
        assert set(entry.trials) == set(of_entry.loc[~of_entry["superseded"], "cell"])
        assert len(entry.trials) == entry.planned
