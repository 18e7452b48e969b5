from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from report_stores import config_of, record_of

from scale_ray.records import Record
from scale_ray.report.effects.tables import Effects
from scale_ray.report.figures.bars import bars_with_intervals
from scale_ray.report.figures.confusion import confusion_matrix
from scale_ray.report.figures.curves import pseudo_labels
from scale_ray.report.figures.dots import dot_plot
from scale_ray.report.figures.drawings import Material, _dots
from scale_ray.report.figures.heat_map import heat_map
from scale_ray.report.figures.style import look, save
from scale_ray.report.tables.grid import Entry, Grid


def lines_of(figure: Figure, panel: int) -> dict[str, list[tuple[float, float]]]:
    """Colour -> points of every line that has any; colours are unique below nine lines."""
    return {
        str(line.get_color()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))  # type: ignore[arg-type]
        for line in figure.axes[panel].lines
        if len(line.get_xdata())  # type: ignore[arg-type]
    }


def test_looks_differ_in_colour_and_in_marker() -> None:
    looks = [look(index) for index in range(56)]
    assert len({one["color"] for one in looks[:8]}) == 8
    assert len({one["marker"] for one in looks[:7]}) == 7
    assert len({(one["color"], one["marker"]) for one in looks}) == 56


def test_an_entry_without_a_number_is_hatched_and_text_stays_readable() -> None:
    entries = {
        ("ce", "a"): Entry(10.0, 1.0, 2, done=2),
        ("ce", "b"): Entry(90.0, 1.0, 2, done=2),
        ("ce", "c"): Entry(failed=2),
    }
    axes = heat_map(
        Grid("losses_by_backbone", "digits", "", "target_accuracy", ["ce"], ["a", "b", "c"], entries, [])
    ).axes[0]
    assert [patch.get_hatch() for patch in axes.patches] == [None, None, "////"]
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        "10.0 ± 1.0": "white", "90.0 ± 1.0": "black", "failed (2)": "#666666",
    }  # fmt: skip


# Pseudo-labels


def curves_of(trials: list[tuple[str, str, int, list[tuple[int, float | None, float | None]]]]) -> tuple[Any, Any]:
    """(cells, points) of trials (losses, pair, seed, [(step, kept fraction, kept accuracy)])."""
    cells = [
        {"cell": str(number), "losses": losses, "pair": pair, "seed": seed}
        for number, (losses, pair, seed, _) in enumerate(trials)
    ]
    points = [
        {"cell": str(number), "step": step, "kept_fraction": kept, "kept_accuracy": right}
        for number, (*_, curve) in enumerate(trials)
        for step, kept, right in curve
    ]
    alike = {"method": "scale", "variant": "scale", "backbone": "b"}
    return pd.DataFrame(cells).assign(**alike), pd.DataFrame(points).astype(
        {"kept_fraction": float, "kept_accuracy": float}
    )


def test_pseudo_labels_average_pairs_within_a_seed_and_then_seeds() -> None:
    figure = pseudo_labels(
        *curves_of(
            [
                ("ce+ssl", "p", 0, [(0, None, None), (1, 0.2, 60)]),
                ("ce+ssl", "q", 0, [(0, None, None), (1, 0.4, 80)]),
                ("ce+ssl", "p", 1, [(0, None, None), (1, 0.6, 90)]),
                ("ce+ssl", "q", 1, [(0, None, None), (1, 0.8, 90)]),
            ]
        ),
        "b",
        "title",
    )
    assert figure is not None
    kept, right = lines_of(figure, 0), lines_of(figure, 1)
    assert list(kept.values()) == [[(1, pytest.approx(50))]]  # (30 + 70) / 2, and step 0 is no point
    assert list(right.values()) == [[(1, pytest.approx(80))]]
    assert len(figure.axes[0].collections) == 1  # the band


def test_pseudo_labels_compare_the_same_trials_and_only_whole_steps() -> None:
    figure = pseudo_labels(
        *curves_of(
            [
                ("ce+ssl", "p", 0, [(1, 0.2, 60), (2, 0.3, 61)]),
                ("ce+ssl", "p", 1, [(1, 0.9, 99), (2, 0.9, 99)]),  # ce+dist has no seed 1
                ("ce+dist", "p", 0, [(1, 0.0, None), (2, 0.5, 70)]),
                ("ce+reg", "p", 0, [(1, None, None), (2, None, None)]),  # keeps no labels: no line
            ]
        ),
        "b",
        "title",
    )
    assert figure is not None
    assert sorted(lines_of(figure, 0).values()) == [[(1, 0.0), (2, 50.0)], [(1, 20.0), (2, 30.0)]]
    assert sorted(lines_of(figure, 1).values()) == [[(1, 60.0), (2, 61.0)], [(2, 70.0)]]


def test_without_pseudo_labels_there_is_no_figure_and_without_their_accuracy_one_panel() -> None:
    cells, points = curves_of([("ce+ssl", "p", 0, [(1, 0.2, None)])])
    figure = pseudo_labels(cells, points, "b", "title")
    assert figure is not None
    assert len(figure.axes) == 1
    assert pseudo_labels(cells, points.drop(columns="kept_accuracy"), "b", "title") is not None  # older records
    assert pseudo_labels(cells, points.assign(kept_fraction=np.nan), "b", "title") is None
    assert pseudo_labels(cells, points, "another", "title") is None


# Pairs and Shapley values


def test_dots_stand_with_their_pair_and_the_average_is_last() -> None:
    dots = pd.DataFrame(
        [
            ("average", "a", 5.0, 4.0, 6.0, (4.5, 5.0, 5.5)),
            ("p10", "a", 1.0, 0.5, 2.0, (0.5, 1.0, 1.5)),
            ("p2", "a", 3.0, None, None, (2.5, 3.5)),
            ("p2", "b", None, None, None, ()),
        ],
        columns=["pair", "method", "value", "low", "high", "by_seed"],
    ).astype({"low": float, "high": float})
    figure = dot_plot(dots, "title")
    assert figure is not None
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["p2", "p10", "average"]
    values, heights = axes.lines[0].get_data()
    assert dict(zip(np.round(heights), values, strict=True)) == {0: 3.0, 1: 1.0, 2: 5.0}
    ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments() if len(segment)]  # type: ignore[attr-defined]
    assert [end for end in ends if not np.isnan(end).any()] == [[4.0, 6.0], [0.5, 2.0]]
    seeds = [line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert seeds == [2.5, 3.5]  # two seeds have no interval and are shown
    assert axes.get_xlim()[0] >= 0
    assert dot_plot(dots.assign(value=None), "title") is None


def test_a_bar_whose_interval_holds_zero_is_hatched() -> None:
    values = pd.DataFrame({"label": ["ssl", "reg"], "value": [3.0, -0.5], "low": [1.0, -1.5], "high": [5.0, 0.5]})
    figure = bars_with_intervals(values, "title", "points")
    assert figure is not None
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == [3.0, -0.5]
    assert ["/" in (bar.get_hatch() or "") for bar in bars] == [False, True]
    assert [text.get_text() for text in figure.axes[0].texts][1].replace("\N{MINUS SIGN}", "-") == "-0.5 [-1.5, +0.5]"
    assert bars_with_intervals(values[:0], "title", "points") is None


# One trial


def with_confusion(confusion: list[list[int]], classes: list[str], accuracy: float) -> Record:
    record = record_of(config_of("mnist", "mnistm", "ce+ssl", "lenet", 0), accuracy)
    assert record.result is not None
    result = record.result.model_copy(update={"confusion": confusion, "classes": classes})
    return record.model_copy(update={"result": result})


def test_rows_of_a_confusion_matrix_are_shares_and_its_diagonal_is_the_accuracy_of_a_class() -> None:
    figure = confusion_matrix(with_confusion([[3, 1, 0], [0, 10, 0], [0, 0, 0]], ["cat", "dog", "none"], 92.9))
    assert figure is not None
    left, right = figure.axes
    shares = left.images[0].get_array()
    assert shares is not None
    assert np.asarray(shares)[:2].tolist() == [[75, 25, 0], [0, 100, 0]]
    assert [bar.get_width() for bar in right.patches if isinstance(bar, Rectangle)] == [75, 100, 0]
    assert [text.get_text() for text in left.get_yticklabels()] == ["cat", "dog", "none (no image)"]
    assert "92.9" in right.get_xlabel()


def test_an_older_record_and_a_failed_one_have_no_confusion_matrix() -> None:
    assert confusion_matrix(with_confusion([], [], 90.0)) is None
    assert confusion_matrix(record_of(config_of("mnist", "mnistm", "ce+ssl", "lenet", 0), None)) is None


def test_many_classes_get_a_colour_bar_in_place_of_numbers() -> None:
    figure = confusion_matrix(with_confusion(np.eye(65, dtype=int).tolist(), [f"c{n}" for n in range(65)], 100.0))
    assert figure is not None
    assert len(figure.axes) == 3
    assert not figure.axes[0].texts


def test_a_saved_figure_is_three_files_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    values = pd.DataFrame({"label": ["ssl"], "value": [3.0], "low": [1.0], "high": [5.0]})
    written = []
    for name in ("a", "b"):
        figure = bars_with_intervals(values, "title", "points")
        assert figure is not None
        written.append(save(figure, tmp_path / f"{name}.x"))
    assert [path.name for path in written[0]] == ["a.x.png", "a.x.svg", "a.x.pdf"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]
    assert b"CreationDate" not in written[0][2].read_bytes()


def test_of_many_methods_the_average_alone_is_drawn_and_says_so() -> None:
    rows = [f"m{number:02}" for number in range(13)]
    entries = {
        (row, column): Entry(50.0 + number, None, 1, done=1, measured=1)
        for number, row in enumerate(rows)
        for column in ("p1", "p2", "average")
    }
    grid = Grid("pairs_by_method", "digits", "", "target_accuracy", rows, ["p1", "p2", "average"], entries, [])
    nothing = pd.DataFrame({"benchmark": []})
    material = Material([grid], nothing, nothing, Effects({}, []))
    (drawing,) = _dots(material)
    axes = drawing.figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == rows[::-1]  # the highest first
    assert axes.lines[0].get_xdata().tolist() == [62.0 - number for number in range(13)]  # type: ignore[union-attr]
    title = drawing.figure.get_suptitle().replace("\n", " ")
    assert "average. 13 methods are too many to draw on every pair; the table has them." in title
    assert drawing.figure.get_figheight() < 6


def test_no_bar_has_an_infinite_end() -> None:
    values = pd.DataFrame({"label": ["a"], "value": [1.0], "low": [-0.3], "high": [float("inf")]})
    figure = bars_with_intervals(values, "title", "points")
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["+1.0 [\N{MINUS SIGN}0.3, no bound]"]
