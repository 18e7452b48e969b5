"""The paper's grid of 864 cells with every flaw: what is said, and what is made of it where that is accepted.

Run with UPDATE_GOLDEN=1 to write the files anew, then read the difference.
"""

import os
from pathlib import Path

import pytest
from report_stores import flawed_office_home

from scale_ray.report import Grid, ReportError, check, effects_text, grids, holes, load, stacks, tabulate
from scale_ray.report.effects import effects_tables
from scale_ray.report.tables import comma_separated, html, latex, markdown
from scale_ray.store import Store

GOLDEN = Path(__file__).parent / "golden" / "office_home"
WRITE = {
    "md": lambda found: "\n".join(map(markdown, found)),
    "csv": comma_separated,
    "tex": lambda found: "\n".join(map(latex, found)),
    "html": lambda found: "\n".join(map(html, found)),
}


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


def same_as(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_the_refusal_names_everything(store: Store) -> None:
    with pytest.raises(ReportError) as caught:
        check(load(store.location))
    same_as("refusal.txt", f"{caught.value}\n")


def test_the_holes_are_listed(store: Store) -> None:
    same_as("holes.csv", holes(load(store.location)).to_csv(index=False, lineterminator="\n"))


@pytest.mark.parametrize("form", ["losses_by_backbone", "pairs_by_method", "losses_by_seed"])
@pytest.mark.parametrize("kind", list(WRITE))
def test_tables_where_all_is_accepted(students: list[Grid], form: str, kind: str) -> None:
    same_as(f"{form}.{kind}", WRITE[kind](stacks(grid for grid in students if grid.form == form)))


@pytest.mark.parametrize("kind", ["md", "tex"])
def test_effects_where_all_is_accepted(store: Store, kind: str) -> None:
    cells, _ = check(load(store.location), ["recipe", "duplicates", "code", "data"])
    write = {"md": effects_text.markdown, "tex": effects_text.latex}[kind]
    same_as(f"effects.{kind}", write(effects_tables(cells)))
