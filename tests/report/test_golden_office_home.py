"""The paper's grid of 864 cells with every flaw: how it is refused, and its tables if the flaws are accepted."""

import pytest
from golden_files import assert_golden
from report_stores import flawed_office_home

from scale_ray.report import Grid, ReportError, check, grids, holes, load, stacks, tabulate
from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.effects.text import latex, markdown
from scale_ray.report.tables.formats import FORMATS
from scale_ray.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("office_home"), create=True)
    flawed_office_home(store)
    return store


@pytest.fixture(scope="module")
def students(store: Store) -> list[Grid]:
    cells, remarks = check(load(store.location, oracle=True), ["recipe", "duplicates", "code", "data"])
    found = grids(cells, remarks=remarks, published=True, oracle=True)
    found += tabulate(cells, "losses", "seed", "backbone", remarks=remarks)
    return [grid for grid in found if grid.metric == "target_accuracy"]


def test_the_refusal_names_everything(store: Store) -> None:
    with pytest.raises(ReportError) as caught:
        check(load(store.location))
    assert_golden("office_home/refusal.txt", f"{caught.value}\n")


def test_the_holes_are_listed(store: Store) -> None:
    assert_golden("office_home/holes.csv", holes(load(store.location)).to_csv(index=False, lineterminator="\n"))


@pytest.mark.parametrize("form", ["losses_by_backbone", "pairs_by_method", "losses_by_seed"])
@pytest.mark.parametrize("kind", list(FORMATS))
def test_tables_where_all_is_accepted(students: list[Grid], form: str, kind: str) -> None:
    assert_golden(f"office_home/{form}.{kind}", FORMATS[kind](stacks(grid for grid in students if grid.form == form)))


@pytest.mark.parametrize("kind", ["md", "tex"])
def test_effects_where_all_is_accepted(store: Store, kind: str) -> None:
    cells, _ = check(load(store.location), ["recipe", "duplicates", "code", "data"])
    write = {"md": markdown, "tex": latex}[kind]
    assert_golden(f"office_home/effects.{kind}", write(effects_tables(cells)))
