import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from page_stores import COMMAND, Contents, wide_store
from report_stores import config_of, record_of

from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.page import trials
from scale_ray.report.page.page import page
from scale_ray.report.page.template import Picture, breakable
from scale_ray.report.page.trials import causes, listed, payload
from scale_ray.report.read.load import load
from scale_ray.report.tables.forms import grids
from scale_ray.report.tables.grid import Entry
from scale_ray.report.tables.text import interval_text
from scale_ray.store import Store


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return Contents.of(wide_store(tmp_path_factory.mktemp("wide")))


def text_of(contents: Contents, **more: Any) -> str:
    return page(contents.cells, grids(contents.cells), more.pop("figures", {}), curves=contents.curves, **more)


def part(text: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', text, re.DOTALL)
    return found[0] if found else ""


def test_a_table_has_a_body_and_a_label_for_every_pre_training(tmp_path: Path) -> None:
    contents = Contents.of(wide_store(tmp_path, backbones=2))
    tables = re.findall(r'<table class="grid".*?</table>', text_of(contents), re.DOTALL)
    (by_method, *_) = [
        table for table in tables if "source_only" in table and "Target accuracy of the student" in table
    ]
    bodies = by_method.split("<tbody>")[1:]
    assert len(bodies) == 2
    for body, backbone in zip(bodies, ("resnet50", "resnet101"), strict=True):
        head, *rows = re.findall("<tr.*?</tr>", body, re.DOTALL)
        assert head == f'<tr class="group"><th scope="rowgroup" colspan="6">{backbone}, random weights</th></tr>'
        assert len(rows) == 8
        assert all(f'data-name="{backbone}, random weights: ' in row for row in rows)


# What the script is given


def test_failures_that_differ_in_numbers_alone_are_one_cause(contents: Contents) -> None:
    found = causes(contents.cells)
    failed = contents.cells[contents.cells["status"] == "failed"]
    memory = failed["error"].str.startswith("OutOfMemoryError")
    assert failed.loc[memory, "error"].nunique() > 1
    assert {cause.error: len(cause.trials) for cause in found} == {
        "OutOfMemoryError: CUDA out of memory. Tried to allocate # GiB. GPU # has # GiB in all": memory.sum(),
        "RuntimeError: <b>loss</b> is nan": (~memory).sum(),
    }
    assert len(found[0].trials) >= len(found[1].trials)
    assert all(cause.traceback in set(cause.trials["traceback"]) for cause in found)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("E: at 0x7fa0 of 12", "E: at 0x11 of 3.5e-7", True),
        ("E: key 0123456789abcdef gone", "E: key fedcba9876543210 gone", True),
        ("E: no GPU", "E: no CPU", False),
    ],
)
def test_what_counts_as_a_number(one: str, other: str, same: bool) -> None:
    cells = pd.DataFrame({"status": "failed", "error": [one, other], "traceback": "t"})
    assert len(causes(cells)) == 2 - same


def test_a_curve_is_thinned_from_its_end(contents: Contents) -> None:
    cells = contents.cells[contents.cells["status"] == "done"][:1]
    points = pd.DataFrame({"cell": cells["cell"].iloc[0], "step": range(200)}).assign(
        target_accuracy=lambda frame: frame["step"] / 2, teacher_accuracy=float("nan"), kept_fraction=0.25
    )
    found = json.loads(payload(cells, points))
    (curve,) = found["curves"]
    steps = found["steps"][curve["steps"]]
    assert len(steps) == 50
    assert steps[-2:] == [195, 199]
    assert curve["target_accuracy"][-2:] == [97.5, 99.5]
    assert curve["kept"] == [25.0] * 50
    assert "teacher_accuracy" not in curve  # never measured


def test_a_trial_is_read_back_as_it_is(contents: Contents) -> None:
    found = json.loads(payload(contents.cells, contents.curves))
    for number in (0, 50):
        row = contents.cells.iloc[number]
        for column in ("cell", "seed", "target_accuracy", "status", "losses"):
            coded = found["columns"][column]
            code = coded["codes"][number]
            assert (coded["levels"][code] if code >= 0 else None) == (None if pd.isna(row[column]) else row[column])
        assert (found["curves"][number] is not None) == (row["status"] == "done")


def test_most_trials_of_a_study_share_a_value_or_none_is_called_common(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    for seed in range(5):
        changes = {"losses.threshold": 0.9} if seed == 3 else {}
        losses = ["ce+ssl", "ce+dist"][seed % 2] if seed else "ce+reg"
        store.write_record(record_of(config_of("mnist", "mnistm", losses, "lenet", seed, **changes), 50.0))
    common = json.loads(payload(Contents.of(store).cells, None))["common"][""]
    assert common["losses.threshold"] == [0.8, 4, 5, 2]
    assert common["losses"] == [None, 2, 5, 3]
    assert common["backbone"] == ["lenet", 5, 5, 1]


def test_what_is_not_done_is_listed_first(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(contents.cells) is contents.cells
    holes = int((contents.cells["status"] != "done").sum())
    monkeypatch.setattr(trials, "LISTED", holes + 2)
    few = listed(contents.cells)
    assert (few["status"] == "done").sum() == 2
    assert few["cell"].tolist() == [cell for cell in contents.cells["cell"] if cell in set(few["cell"])]
    text = text_of(contents)
    assert f"{holes + 2} of them are on this page" in text
    assert sum(map(int, re.findall(r'data-more="(\d+)"', text))) > 0


# The page


def test_nothing_in_a_record_can_end_the_script(contents: Contents) -> None:
    evil = "E: </script><script>alert(1)</script>"
    cells = contents.cells.assign(error=evil, host=evil, traceback=evil)
    text = text_of(
        Contents(cells, contents.curves),
        commands={"wide": evil},
        figures={"digits": {evil: [Picture(evil, b"<svg/>")]}},
    )
    assert text.count("<script") == text.count("</script") == 2


def test_only_the_pages_own_script_may_run(contents: Contents) -> None:
    text = text_of(contents)
    script = text.rpartition("<script>")[2].rpartition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text.replace("&#39;", "'")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)


def test_an_entry_leads_to_its_trials(contents: Contents) -> None:
    found = re.search(r'data-name="ce\+dist / resnet50" data-trials="([\d ]+)" data-more="0"', text_of(contents))
    assert found
    behind = contents.cells.iloc[[int(number) for number in found[1].split()]]
    assert set(behind["losses"]) == {"ce+dist"}
    assert len(behind) == (contents.cells["losses"] == "ce+dist").sum() == 12


def test_the_command_is_shown_where_something_is_missing(contents: Contents) -> None:
    with_command = part(text_of(contents, commands={"wide": COMMAND}), "answer")
    counts = contents.cells["status"].value_counts()
    assert f"{counts['failed']} failed, {counts['missing']} missing, 1 stale" in with_command
    assert "--store &#39;runs/my store&#39;</pre>" in with_command
    without = part(text_of(contents, commands={"wide": None}), "answer")
    assert "does not hold the command" in without
    whole = contents.cells[contents.cells["status"] == "done"]
    assert "Run what" not in part(text_of(Contents(whole, contents.curves)), "answer")


def test_effects_are_there_only_if_given_and_claims_are_coloured(contents: Contents) -> None:
    bare = text_of(contents)
    assert not any(part(bare, name) for name in ("claims", "shapley", "effects", "differences"))
    effects = effects_tables(contents.cells)
    full = text_of(contents, effects=effects)
    for name in ("claims", "shapley", "effects", "differences"):
        assert part(full, name).count("<tr>") == 2 * (
            1 + len(effects.frames[name])
        )  # what a paper has room for, and more
    assert '<td class="holds">holds</td>' in part(full, "claims")
    assert all(note in full for note in effects.notes)


def test_an_entry_has_its_interval_and_columns_beside_are_marked(tmp_path: Path) -> None:
    """Two backbones far apart over 6 keys: the best row holds up; the oracle's columns are no entries."""
    store = Store(tmp_path / "store", create=True)
    for seed in range(6):
        for losses, accuracy in {"ce": 50.0, "ce+ssl": 70.0}.items():
            store.write_record(record_of(config_of("mnist", "usps", losses, "lenet", seed), accuracy + seed))
    cells = Contents.of(store).cells
    text = page(cells, grids(cells, oracle=True), {})
    # t(5) = 2.5706 times the spread of 0 … 5, 1.8708, over the root of 6: 1.9633. In log odds of 72.5 %: 0.0985.
    assert re.search(r"<strong>72\.5 ± 1\.9</strong><small>\[70\.5, 74\.4\]</small>", text)
    assert re.search(r">52\.5 ± 1\.9<small>\[50\.5, 54\.5\]</small>", text)
    assert text.count('class="beside"') == 4  # two rows of two forms


def test_a_page_is_the_same_each_time_and_its_size_is_bounded(tmp_path: Path) -> None:
    wide = Contents.of(wide_store(tmp_path / "s", pairs=12, backbones=3))
    assert len(wide.cells) == 864
    figures = {"digits": {"Curves": [Picture(f"figure {number}", b"x" * 900_000) for number in range(6)]}}
    text = text_of(wide, figures=figures)
    assert len(text.encode()) < 5_000_000
    assert text.count('src="data:image') == 2
    assert "figure 5: too large for this page" in text
    assert text == text_of(wide, figures=figures)


def test_labels_may_be_broken_after_signs_and_not_inside_words() -> None:
    assert breakable("mean_teacher (ce+<ssl>)") == "mean_<wbr>teacher (ce+<wbr>&lt;ssl&gt;<wbr>)"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(98.0, 99.5, "[98.0, 99.5]"), (99.0, 99.0, "all seeds alike"), (98.98, 99.02, "[98.98, 99.02]")],
)
def test_an_interval_has_a_width_or_says_that_seeds_are_alike(low: float, high: float, text: str) -> None:
    assert interval_text(Entry(99.0, 0.1, 3, low=low, high=high, by_seed=(99.0,) * 3)) == text


def test_seeds_that_average_other_pairs_are_not_shown_beside_each_other(make_store: Callable[..., Store]) -> None:
    done = [("mnist", 0), ("fonts", 0), ("mnist", 1)]
    store = make_store([(config_of(source, "mnistm", "ce", "lenet", seed), 50.0 + seed) for source, seed in done])
    (grid,) = [grid for grid in grids(load(store.location)) if grid.metric == "target_accuracy"][:1]
    (entry,) = grid.entries.values()
    assert (entry.n, entry.by_seed, interval_text(entry)) == (2, (), "")
