import csv
import dataclasses
import io
import os
import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from golden_files import assert_golden
from rich.console import Console

from scale_ray.report import Entry, Grid, Stack, grids, load, stacks, terminal_table
from scale_ray.report.tables.csv import comma_separated, frame_to_csv, harmless
from scale_ray.report.tables.formats import FORMATS
from scale_ray.report.tables.forms import FORMS
from scale_ray.report.tables.html import html
from scale_ray.report.tables.latex import latex
from scale_ray.report.tables.markdown import markdown
from scale_ray.report.tables.text import entry_text
from scale_ray.store import Store


def grid_of(entry: Entry, name: str = "r") -> Grid:
    return Grid("losses_by_backbone", "digits", "", "target_accuracy", [name], ["c"], {(name, "c"): entry}, [])


FORMULAS = [
    "=1+1",
    "+cmd",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "x\r=1",
    "\uff1d1+1",
    "\uff0b1+1",
    "\uff0d1",
    "\uff20x",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula_to_a_spreadsheet(text: str) -> None:
    """Names are the users': a domain's folder may be called `=HYPERLINK(…)`."""
    entry = Entry(94.2, 0.3, 3, done=3, measured=3)
    grid = Grid("losses_by_backbone", text, text, text, [text], [text], {(text, text): entry}, [])
    rows = list(csv.reader(io.StringIO(comma_separated(stacks([grid])), newline="")))
    frame = pd.DataFrame({"number": [-1.5, 2.0], text: pd.Series([text, None], dtype="str"), "mixed": [text, -1]})
    rows += list(csv.reader(io.StringIO(frame_to_csv(frame), newline="")))
    cells = [cell for row in rows for cell in row]
    assert not [
        cell for cell in cells if cell.startswith(FORMULA_SIGNS) and not cell.lstrip("-").replace(".", "").isdigit()
    ]
    shown = text.replace("\r", " ")
    assert cells.count(f"'{shown}" if text[0] != "x" else shown) == 5 + 3
    assert [row[0] for row in rows[-2:]] == ["-1.5", "2.0"]


@pytest.mark.parametrize("value", [-1, -1.5, "-1.5", "+2", "-1e3", "cat", "", None, True, "a=b"])
def test_numbers_and_other_texts_stay_as_they_are(value: object) -> None:
    assert harmless(value) is value


FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", list(FORMATS))
def test_tables_are_as_they_were(study_store: Store, form: str, kind: str) -> None:
    share = stacks(grid for grid in grids(load(study_store.location)) if grid.form == form)
    assert_golden(f"{form}.{kind}", FORMATS[kind](share))


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(94.24, 0.31, 3, done=3, measured=3), "94.2 ± 0.3"),
        (Entry(94.24, None, 1, done=1, measured=1), "94.2"),
        (Entry(94.24, 0.31, 3, done=4, failed=1, missing=1, measured=4), "94.2 ± 0.3 †"),
        (Entry(0.0, 0.0, 2, done=2, measured=2), "0.0 ± 0.0"),
        (Entry(missing=6), "missing"),
        (Entry(failed=2), "failed (2)"),
        (Entry(failed=2, missing=4), "failed (2), missing (4)"),
        (Entry(stale=1), "stale (1)"),
        (Entry(done=3), "no labels"),
        (Entry(done=3, measured=3), "nothing in common"),
        (Entry(), "—"),
    ],
)
def test_what_an_entry_says(entry: Entry, text: str) -> None:
    assert entry_text(entry, grid_of(entry)) == text


def test_n_is_part_of_the_entries_where_it_differs() -> None:
    entries = {("r", "a"): Entry(90.0, 1.0, 3, done=3, measured=3), ("r", "b"): Entry(80.0, 1.0, 2, done=2, measured=2)}
    grid = Grid("pairs_by_method", "digits", "", "target_accuracy", ["r"], ["a", "b"], entries, [])
    assert [entry_text(entry, grid) for entry in entries.values()] == ["90.0 ± 1.0 (n=3)", "80.0 ± 1.0 (n=2)"]


def test_latex_is_escaped_and_balanced(study_store: Store) -> None:
    text = "\n".join(map(latex, stacks(grids(load(study_store.location, oracle=True), oracle=True))))
    assert "lenet oracle (best epoch on target labels)" in text
    assert r"mnist$\rightarrow$mnistm" in text
    assert r"source\_only" in text
    assert r"$\pm$" in text
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text).count("tabular") == text.count(r"\end{tabular}")
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        labels = [line for line in lines if r"\multicolumn" in line]
        assert all(rf"\multicolumn{{{len(table[0])}}}{{l}}" in line for line in labels)
        lines = [line for line in lines if line not in labels]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(table[0])}


def test_markdown_marks_in_labels_are_escaped() -> None:
    entry = Entry(1.0, None, 1, done=1, measured=1)
    assert r"| 0.5\*ssl\|x |" in markdown(Stack([grid_of(entry, "0.5*ssl|x")]))


def test_csv_has_one_line_per_entry_and_no_zero_for_a_hole(study_store: Store) -> None:
    found = grids(load(study_store.location))
    lines = list(csv.DictReader(comma_separated(stacks(found)).splitlines()))
    assert len(lines) == sum(len(grid.rows) * len(grid.columns) for grid in found)
    holes = [line for line in lines if line["row"] == "dann"]
    assert {(line["mean"], line["n"]) for line in holes} == {("", "0")}
    assert {line["text"] for line in holes} == {"missing", "—"}


def test_the_terminal_shows_every_entry(study_store: Store) -> None:
    stack = next(found for found in stacks(grids(load(study_store.location))) if found.form == "pairs_by_method")
    console = Console(width=140, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(terminal_table(stack))
        shown = console.export_text()
    assert len(stack.grids) == 2
    for grid in stack.grids:
        for text in [
            grid.group,
            *grid.rows,
            *grid.columns,
            *(entry_text(entry, grid) for entry in grid.entries.values()),
        ]:
            assert text in shown


@pytest.mark.parametrize("width", [40, 80, 200])
def test_columns_that_do_not_fit_the_terminal_go_into_further_tables(width: int) -> None:
    columns = [f"source_{index}>target_{index}" for index in range(12)]
    entries = {("scale", column): Entry(50.0 + index, 0.5, 3) for index, column in enumerate(columns)}
    stack = Stack([Grid("pairs_by_method", "digits", "", "target_accuracy", ["scale"], columns, entries, ["A note."])])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal_table(stack))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    cells = [cell.strip() for line in lines for cell in re.split("[┃│]", line)]
    for index in range(12):
        assert [cells.count(f"source_{index}>"), cells.count(f"target_{index}")] == [1, 1]
        assert cells.count(f"{50 + index}.0 ± 0.5") == 1
    tables = sum(line.startswith("┏") for line in lines)
    assert cells.count("scale") == tables
    # Each column takes 13 (`50.0 ± 0.5`, two spaces, a line); 9 are for the label and the edge: 2, 5 or all 12 fit.
    assert tables == {40: 6, 80: 3, 200: 1}[width]
    assert lines[-1] == "A note."


def test_the_best_is_bold_everywhere() -> None:
    entry = Entry(94.24, 0.31, 3, done=3, measured=3)
    grid = dataclasses.replace(grid_of(entry, "a_b"), best=frozenset({("a_b", "c")}))
    stack = Stack([grid])
    assert "| **94.2 ± 0.3** |" in markdown(stack)
    assert r"a\_b & \textbf{94.2 $\pm$ 0.3} \\" in latex(stack)
    assert "<td><strong>94.2 ± 0.3</strong></td>" in html(stack)
    assert next(csv.DictReader(comma_separated([stack]).splitlines()))["best"] == "1"


def test_html_is_escaped_and_whole() -> None:
    entry = Entry(1.0, None, 1, done=1, measured=1)
    grid = dataclasses.replace(grid_of(entry, "a<b>&"), notes=["1 < 2"])
    root = ElementTree.fromstring(f"<div>{html(Stack([grid]))}</div>")
    table, notes = root
    assert [element.text for element in table.iter("th")] == [None, "c", "a<b>&"]
    assert [element.text for element in table.iter("td")] == ["1.0"]
    assert [element.text for element in notes] == ["1 < 2"]
