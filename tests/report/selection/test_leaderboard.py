"""A leaderboard of two small studies, by hand."""

import json
from pathlib import Path

import pytest
from PIL import Image
from report_stores import CREATED, cell_of, config_of, record_of
from selection_stores import ACCURACY, IM, LABELS, scored, with_predictions

from scale_ray.config import TrialConfig
from scale_ray.report import ReportError
from scale_ray.report.figures.board import board_plot
from scale_ray.report.leaderboard import Leaderboard, SetResult, leaderboard, set_results, write_leaderboard
from scale_ray.report.tables.grid import Entry
from scale_ray.store import Store, StudyPlan

# On the second set, of one pair, im chooses dann.
PHOTOS = {"dann": (60.0, 2.0), "mcc": (64.0, 1.0), "source_only": (50.0, 0.5)}
SECONDS = {"dann": 54.0, "mcc": 45.0, "source_only": 36.0}
SEEDS = 2


def write(store: Store, config: TrialConfig, accuracy: float, im: float, labels: list[int]) -> None:
    record = scored(config, accuracy, {"im": im})
    wall = record.provenance.model_copy(update={"wall_seconds": SECONDS[config.method]})
    with_predictions(store, record.model_copy(update={"provenance": wall}), labels)


def written(folder: Path) -> Store:
    """`digits` has two pairs, three methods and two seeds; `photos` one pair and another backbone."""
    store = Store(folder, create=True)
    plans: dict[str, list[TrialConfig]] = {"digits": [], "photos": []}
    for method, of_pairs in LABELS.items():
        for seed in range(SEEDS):
            for source, labels in of_pairs.items():
                config = config_of(source, "mnistm", "ce", "lenet", seed, method)
                write(store, config, ACCURACY[method][source] + seed, IM[method], labels)
                plans["digits"].append(config)
            config = config_of("mnist", "mnistm", "ce", "resnet18", seed, method)
            write(store, config, PHOTOS[method][0] + seed, PHOTOS[method][1], of_pairs["mnist"])
            plans["photos"].append(config)
    for name, configs in plans.items():
        store.write_plan(StudyPlan(name=name, created=CREATED, cells=[cell_of(config) for config in configs]))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return written(tmp_path_factory.mktemp("board"))


NAMES = ["digits", "photos", "not run yet"]


@pytest.fixture(scope="module")
def measured(store: Store) -> list[SetResult]:
    return set_results(store.location, NAMES)


@pytest.fixture(scope="module")
def found(measured: list[SetResult]) -> Leaderboard:
    return leaderboard(measured)


def test_accuracies_are_means_over_pairs_and_spread_over_seeds(found: Leaderboard) -> None:
    """dann on digits: seed 0 (60 + 50) / 2 = 55, seed 1 56. mcc (70 + 40) / 2 and so on; photos has one pair."""
    grid = found.grid
    assert grid.columns == ["digits", "photos"]
    means = {position: entry.mean for position, entry in grid.entries.items()}
    assert means == {
        ("source_only", "digits"): 54.0, ("dann", "digits"): 55.5, ("mcc", "digits"): 55.5,
        ("source_only", "photos"): 50.5, ("dann", "photos"): 60.5, ("mcc", "photos"): 64.5,
    }  # fmt: skip
    assert [entry.std for entry in grid.entries.values()] == pytest.approx([0.5**0.5] * 6)


def test_rows_are_sorted_by_their_distance_to_the_best(found: Leaderboard) -> None:
    """Points below the best: mcc 0, 0; dann 0, 4; source_only 1.5, 14."""
    assert found.grid.rows == ["mcc", "dann", "source_only"]
    figures = {position: mean for position, (mean, _) in found.grid.beside[0].figures.items()}
    assert figures == {
        ("mcc", "below the best, mean"): 0.0, ("mcc", "below the best, most"): 0.0,
        ("dann", "below the best, mean"): 2.0, ("dann", "below the best, most"): 4.0,
        ("source_only", "below the best, mean"): 7.75, ("source_only", "below the best, most"): 14.0,
    }  # fmt: skip


def test_costs_are_relative_to_source_only(found: Leaderboard) -> None:
    """Every trial has 600 steps: 54 s are 90 ms a step, 1.5 of source_only's 36 s."""
    costs = found.costs.set_index(["set", "method"])
    assert costs["milliseconds a step"]["digits"].to_dict() == {"source_only": 60.0, "dann": 90.0, "mcc": 75.0}
    assert costs["relative"]["photos"].to_dict() == {"source_only": 1.0, "dann": 1.5, "mcc": 1.25}


def test_each_validator_has_one_choice_for_a_set(found: Leaderboard) -> None:
    """ensv: dann and mcc agree with the ensemble on 93.75 % of digits, dann comes first; photos as in its hand case."""
    table = found.choices.set_index(["benchmark", "validator"])
    assert table["choice"].to_dict() == {
        ("digits", "im"): "mcc", ("digits", "ensv"): "dann", ("digits", "oracle (target labels)"): "dann",
        ("photos", "im"): "dann", ("photos", "ensv"): "mcc", ("photos", "oracle (target labels)"): "mcc",
    }  # fmt: skip
    regret = table["regret of one choice (target labels)"]
    assert regret.to_dict() == {position: 4.0 * (position == ("photos", "im")) for position in regret.index}
    by_set = found.regrets.rename(columns={"regret of one choice (target labels)": "one"})
    for benchmark, validator, one in by_set[["benchmark", "validator", "one"]].itertuples(index=False):
        if benchmark != "all":
            assert regret[benchmark, validator] == one


def test_the_default_is_the_validator_with_the_smallest_worst_case(found: Leaderboard) -> None:
    """Of one pair: ensv loses 2 points on fonts>mnistm at most, im 12."""
    everywhere = found.regrets[found.regrets["benchmark"] == "all"].set_index("validator")
    assert everywhere["worst regret (target labels)"].to_dict() == {"oracle (target labels)": 0, "ensv": 2, "im": 12}
    assert found.validator == "ensv"


def test_it_is_written_as_tables_and_as_a_figure(measured: list[SetResult], tmp_path: Path) -> None:
    results, figure = tmp_path / "results", tmp_path / "docs" / "board.png"
    paths = write_leaderboard(measured, NAMES, results, figure)
    files = ["leaderboard/digits.json", "leaderboard/photos.json", "leaderboard.md"]
    assert paths == [*(results / name for name in files), figure]
    text = paths[2].read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["mcc", "55.5 ± 0.7", "64.5 ± 0.7", "0.0", "0.0"] in cells
    assert ["dann", "1.50", "1.50"] in cells
    assert ["source_only, ms a step", "60.0", "60.0"] in cells
    assert ["photos", "im", "dann", "60.50", "4.00"] in cells
    assert ["seeds", "0, 1", "0, 1"] in cells
    assert "Smallest worst regret over all sets: ensv." in text
    plain = json.loads(paths[0].read_text())
    assert plain["accuracies"]["mcc"]["mean"] == 55.5
    assert plain["accuracies"]["mcc"]["by_seed"] == [55.0, 56.0]
    assert plain["by_pair"]["mcc"] == {"fonts>mnistm": 40.5, "mnist>mnistm": 70.5}
    with Image.open(figure) as picture:
        assert picture.width >= 700
    before = [path.read_bytes() for path in paths]
    write_leaderboard(measured, NAMES, results, figure)
    assert [path.read_bytes() for path in paths] == before


def test_sets_of_several_stores_make_one_leaderboard(measured: list[SetResult], tmp_path: Path) -> None:
    """The second is written later, by a machine that has not the first's store: the same files as in one go."""
    together, apart = tmp_path / "together", tmp_path / "apart"
    write_leaderboard(measured, NAMES, together, tmp_path / "together.png")
    for one in reversed(measured):
        write_leaderboard([one], NAMES, apart, tmp_path / "apart.png")
    assert (apart / "leaderboard.md").read_bytes() == (together / "leaderboard.md").read_bytes()
    assert (tmp_path / "apart.png").read_bytes() == (tmp_path / "together.png").read_bytes()


def test_a_damaged_file_of_a_set_is_named(measured: list[SetResult], tmp_path: Path) -> None:
    write_leaderboard(measured, NAMES, tmp_path, tmp_path / "board.png")
    damaged = tmp_path / "leaderboard" / "photos.json"
    damaged.write_text(damaged.read_text().replace('"accuracies"', '"accuracy"'))
    with pytest.raises(ReportError, match=r"photos.json: no results of a set \(accuracies: Field required\)"):
        write_leaderboard(measured[:1], NAMES, tmp_path, tmp_path / "board.png")


def test_the_figure_has_a_dot_for_each_number(found: Leaderboard) -> None:
    entries = {**found.grid.entries, ("dann", "photos"): Entry()}  # not measured
    figure = board_plot(found.grid.__class__(**{**vars(found.grid), "entries": entries}))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == found.grid.rows
    dots = {line.get_label(): line.get_xdata().tolist() for line in axes.lines if not line.get_label().startswith("_")}
    assert dots == {"digits": [55.5, 55.5, 54.0], "photos": [64.5, 50.5]}


def test_without_a_candidate_on_all_pairs_nothing_is_chosen_for_a_set(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    configs = [
        config_of(*of, "ce", "lenet", 0, method)
        for of, method in ((("mnist", "mnistm"), "dann"), (("fonts", "mnist"), "mcc"))
    ]
    for config in configs:
        store.write_record(scored(config, 50.0, {"im": 1.0}))
    store.write_plan(StudyPlan(name="digits", created=CREATED, cells=[cell_of(config) for config in configs]))
    write_leaderboard(set_results(store.location, NAMES), NAMES, tmp_path, tmp_path / "board.png")
    assert "| benchmark | validator | choice |" in (tmp_path / "leaderboard.md").read_text()


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    store = written(tmp_path)
    Path(store.record_location(cell_of(config_of("mnist", "mnistm", "ce", "resnet18", 1, "mcc")).id, "done")).unlink()
    found = leaderboard(set_results(store.location, NAMES))
    assert "photos: Not finished: 1 of 6 cells." in found.grid.notes
    assert found.grid.entries["mcc", "photos"].missing == 1
    assert found.grid.entries["dann", "photos"].mean == 60.0  # of the seed that every method has
    assert "photos: Left out on mnist>mnistm: mcc, with 1 seed only." in found.notes


def test_cells_of_other_studies_are_not_in_it(tmp_path: Path, found: Leaderboard) -> None:
    store = written(tmp_path)
    store.write_record(record_of(config_of("mnist", "mnistm", "ce", "lenet", 0, "cdan"), 99.0))
    other = [config_of("mnist", "mnistm", "ce", "lenet", 0, method) for method in ("mdd", "dann")]
    store.write_record(record_of(other[0], 99.0))
    store.write_plan(StudyPlan(name="other", created=CREATED, cells=[cell_of(config) for config in other]))
    beside = leaderboard(set_results(store.location, NAMES))
    assert beside.grid.entries == found.grid.entries  # dann's cell of `digits` is one of `other` too
    assert set(beside.regrets["benchmark"]) == {"digits", "photos", "all"}
    with pytest.raises(ReportError, match="no finished cell of pacs: run them into it first"):
        set_results(store.location, ["pacs"])
    with pytest.raises(ReportError, match="studies digits and other have a cell in common"):
        set_results(store.location, ["digits", "other"])
