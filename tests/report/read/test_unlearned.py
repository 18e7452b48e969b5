"""Trainings that did not learn their source: the rule by hand, and its marks in every table."""

from collections.abc import Callable

import pandas as pd
import pytest
from report_stores import config_of, record_of

from scale_ray.report import grids, load
from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.read.unlearned import unlearned
from scale_ray.report.tables.csv import comma_separated
from scale_ray.report.tables.grid import stacks
from scale_ray.report.tables.html import html
from scale_ray.report.tables.latex import latex
from scale_ray.report.tables.markdown import markdown
from scale_ray.store import Store


def cells(*rows: tuple[str, float], classes: float = 10, **changes: object) -> pd.DataFrame:
    """Done cells of one source, each a method and its accuracy on the held-out source images."""
    frame = pd.DataFrame(rows, columns=["method", "source_val_accuracy"])
    usual = {"benchmark": "digits", "source": "fonts", "pre_training": "lenet", "status": "done", "classes": classes}
    return frame.assign(**usual | changes)


@pytest.mark.parametrize(
    ("rows", "classes", "marked"),
    [
        # Chance is 10; source_only reaches 90, so the middle is 50.
        ([("source_only", 90.0), ("cdan", 49.9), ("dann", 50.0)], 10, [False, True, False]),
        (
            [("source_only", 80.0), ("source_only", 100.0), ("cdan", 49.9), ("dann", 50.1)],
            10,
            [False, False, True, False],
        ),
        # Without source_only: a tenth of the way from 10 to 100 is 19; of 2 classes, from 50 to 100, 55.
        ([("cdan", 18.9), ("dann", 19.1)], 10, [True, False]),
        ([("cdan", 54.9), ("dann", 55.1)], 2, [True, False]),
        # Where source_only is near chance too, the middle says nothing.
        ([("source_only", 14.0), ("cdan", 13.0), ("dann", 20.0)], 10, [True, True, False]),
        # Source-free methods leave the source, and are not judged.
        ([("source_only", 90.0), ("shot", 49.0), ("aad", 12.0), ("cdan", 49.0)], 10, [False, False, False, True]),
        # Of older records the number of classes is unknown: chance is 0.
        ([("source_only", 90.0), ("cdan", 44.9), ("dann", 45.1)], float("nan"), [False, True, False]),
    ],
)
def test_the_rule(rows: list[tuple[str, float]], classes: float, marked: list[bool]) -> None:
    assert unlearned(cells(*rows, classes=classes)).tolist() == marked


def test_only_done_cells_of_the_same_source_and_pre_training_count() -> None:
    other = pd.concat(
        [
            cells(("source_only", 90.0), ("cdan", 40.0)),
            cells(("source_only", 60.0), ("cdan", 40.0), source="mnist"),
            cells(("source_only", 60.0), ("cdan", 40.0), pre_training="resnet18"),
            cells(("cdan", float("nan")), status="missing"),
            cells(("cdan", 5.0), status="stale"),
        ],
        ignore_index=True,
    )
    assert unlearned(other).tolist() == [False, True, False, False, False, False, False, False]


@pytest.fixture
def store(tmp_path: object, make_store: Callable[..., Store]) -> Store:
    """Two seeds each of source_only, which learns, and of cdan, whose second training does not."""
    found = make_store([])
    for method, seed, source_val in (("", 0, 97.0), ("", 1, 97.0), ("cdan", 0, 90.0), ("cdan", 1, 15.8)):
        record = record_of(config_of("fonts", "mnist", "ce", "lenet", seed, method), 40.0 + seed)
        assert record.result is not None
        result = record.result.model_copy(
            update={"source_val_accuracy": source_val, "classes": [str(digit) for digit in range(10)]}
        )
        found.write_record(record.model_copy(update={"result": result}))
    return found


def test_every_table_that_it_enters_marks_it_and_says_the_rule(store: Store) -> None:
    loaded = load(store.location)
    assert loaded.set_index(["method", "seed"])["unlearned"].to_dict() == {
        ("cdan", 0): False,
        ("cdan", 1): True,
        ("source_only", 0): False,
        ("source_only", 1): False,
    }
    (grid,) = [each for each in grids(loaded) if (each.form, each.metric) == ("pairs_by_method", "target_accuracy")]
    assert {row: entry.unlearned for (row, _), entry in grid.entries.items()} == {"source_only": 0, "cdan": 1}
    (stack,) = stacks([grid])
    for text in (markdown(stack), html(stack), comma_separated([stack])):
        assert "40.5 ± 0.7 ‡" in text
    assert r"40.5 $\pm$ 0.7 $^\ddagger$" in latex(stack)
    (note,) = [each for each in stack.notes if each.startswith("‡")]
    assert "closer to chance than to that of source_only" in note
    assert note.endswith("cdan / fonts>mnist: 1.")
    assert any("1 training here did not learn the source" in note for note in effects_tables(loaded).notes)


def test_a_table_without_one_says_nothing_of_it(store: Store) -> None:
    learnt = load(store.location).query("seed == 0")
    assert not any("‡" in note for grid in grids(learnt) for note in grid.notes)
    assert not any("did not learn" in note for note in effects_tables(learnt).notes)
