from collections.abc import Callable

import pandas as pd
import pytest
from factorials import COMBINATIONS
from report_stores import config_of

from scale_ray.report import load
from scale_ray.report.effects.measured import tidy
from scale_ray.report.effects.tables import TABLES, effects_tables
from scale_ray.report.effects.text import markdown, readable
from scale_ray.report.read.errors import ReportError
from scale_ray.store import Store

MAKE = Callable[..., Store]
GAIN = dict(zip(COMBINATIONS, [0.0, 0, 6, 2, 14, 3, 10, 15], strict=True))


@pytest.fixture
def cells(make_store: MAKE) -> pd.DataFrame:
    """A full factorial of 2 pairs x 2 seeds and dann, but for ce+reg of one key."""
    outcomes = []
    for index, source in enumerate(["mnist", "fonts"]):
        for seed in range(2):
            for losses, gain in GAIN.items():
                failed = (source, seed, losses) == ("fonts", 1, "ce+reg")
                accuracy = None if failed else 50 + gain + 3 * index + seed
                outcomes.append((config_of(source, "mnistm", losses, "lenet", seed), accuracy))
            outcomes.append((config_of(source, "mnistm", "ce", "lenet", seed, method="dann"), 52.5 + 3 * index + seed))
    return load(make_store(outcomes).location)


def test_tables_of_a_store(cells: pd.DataFrame) -> None:
    tables = effects_tables(cells)
    # By hand from GAIN: see tests of contrasts, which have the same figures less 60.
    assert tables.frames["shapley"].set_index("term")["estimate"]["ssl"] == pytest.approx(19 / 6)
    assert tables.frames["effects"].set_index("effect")["estimate"]["ssl x dist"] == pytest.approx(3.0)
    assert tables.frames["effects"]["keys"].tolist() == [3] * 7
    differences = tables.frames["differences"].set_index("label")
    assert differences.loc["dann", ["estimate", "keys"]].tolist() == [2.5, 4]
    assert differences.loc["ce+reg", ["estimate", "keys", "left_out"]].tolist() == [2.0, 3, 1]
    assert tables.frames["claims"]["estimate"].tolist() == pytest.approx([0.0, 2.0, 14.0, 8.0, 1.0])
    assert set(tables.frames["claims"]["benchmark"]) == {"digits"}
    assert tables.notes == [
        "digits: lenet: effects and Shapley values leave out 1 of 4 (pair, seed) keys: not all 8 combinations are done."
    ]


def test_no_factorial_is_no_effects_and_says_so(study_store: Store) -> None:
    tables = effects_tables(load(study_store.location))
    assert tables.frames["effects"].empty
    assert tables.frames["shapley"].empty
    assert tables.notes == [
        f"digits: {backbone}: no effects or Shapley values: "
        "no cell of ce+dist, ce+reg, ce+ssl+reg, ce+dist+reg is done."
        for backbone in ("lenet", "resnet18")
    ]
    assert set(tables.frames["differences"]["verdict"]) == {"n too small"}
    assert tables.frames["claims"]["why"].str.contains("no cell of").sum() == 4


def test_facets_are_never_mixed(make_store: MAKE) -> None:
    outcomes = [
        (
            config_of(source, "mnistm", losses, "lenet", 0, **{"losses.threshold": threshold}),
            50 + threshold * gain,
        )
        for source in ("mnist", "fonts")
        for losses, gain in {"ce": 0.0, "ce+ssl": 10.0}.items()
        for threshold in (0.8, 0.9)
    ]
    found = effects_tables(load(make_store(outcomes).location)).frames["differences"]
    assert found.set_index("facet")["estimate"].to_dict() == {"losses.threshold=0.8": 8.0, "losses.threshold=0.9": 9.0}


def test_only_done_cells_count(cells: pd.DataFrame) -> None:
    measured = tidy(cells.assign(status=cells["status"].where(cells["losses"] != "ce+ssl", "stale")))
    assert "ce+ssl" not in set(measured["label"])
    assert set(measured["label"]) == {"dann", *COMBINATIONS} - {"ce+ssl"}
    assert "ce" not in set(tidy(cells, "teacher_accuracy")["label"])


def test_methods_with_several_combinations_are_told_apart(make_store: MAKE) -> None:
    outcomes = [(config_of("mnist", "mnistm", losses, "lenet", 0, method="dann"), 50.0) for losses in ("ce", "ce+reg")]
    outcomes.append((config_of("mnist", "mnistm", "ce", "lenet", 0), 50.0))
    assert set(tidy(load(make_store(outcomes).location))["label"]) == {"ce", "dann (ce)", "dann (ce+reg)"}


def test_one_cell_twice_is_refused(cells: pd.DataFrame) -> None:
    with pytest.raises(ReportError, match="two accuracies for"):
        effects_tables(pd.concat([cells, cells], ignore_index=True))


def test_an_empty_store_gives_empty_tables(make_store: MAKE) -> None:
    tables = effects_tables(load(make_store([], planned=[config_of("mnist", "mnistm", "ce", "lenet", 0)]).location))
    assert [len(table) for table in tables.frames.values()] == [0, 0, 0, 0]
    assert markdown(tables) == "\n"


def test_markdown_shows_every_row_with_its_numbers(cells: pd.DataFrame) -> None:
    tables = effects_tables(cells)
    text = markdown(tables)
    assert text.count("\n### ") + text.startswith("### ") == 4
    assert "| lenet | ssl | 3.17 |" in text
    assert "| [-1, 1] | 2.00 |" in text
    assert text.rstrip().endswith("not all 8 combinations are done.")
    widths = [line.count(" | ") for line in text.splitlines() if line.startswith("|")]
    assert len(widths) == sum(len(table) + 2 for table in tables.frames.values())
    (differences,) = [table for table in TABLES if table.name == "differences"]
    shown = readable(tables.frames["differences"], differences.columns)
    assert set(shown["95 %: on other pairs"].str.partition(" ")[0]) == {"only"}  # of two pairs
    assert not shown.isna().any(axis=None)
