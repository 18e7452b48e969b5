import re
from collections.abc import Callable
from typing import Any

import pytest
from report_stores import cell_of, config_of, digests, record_of

from scale_ray.cell import Cell
from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.identity import identity
from scale_ray.report import ReportError, check, grids, holes, load
from scale_ray.store import Store, StudyPlan

MAKE = Callable[..., Store]
FIRST = config_of("mnist", "mnistm", "ce+ssl", "lenet", 0)
SECOND = config_of("mnist", "mnistm", "ce+ssl", "lenet", 1)
REPAIRED = digests(FIRST) | {"source": "sha-repaired"}


def refusal(store: Store, allow: tuple[str, ...] = ()) -> str:
    with pytest.raises(ReportError) as caught:
        check(load(store.location), allow)
    return str(caught.value)


def means(store: Store, *allow: str) -> tuple[dict[tuple[str, str], float | None], list[str]]:
    cells, remarks = check(load(store.location), allow)
    grid = grids(cells, remarks=remarks)[0]
    return {position: entry.mean for position, entry in grid.entries.items()}, grid.notes


def test_one_code_recipe_and_data_needs_no_leave(study_store: Store) -> None:
    cells, remarks = check(load(study_store.location))
    assert cells.equals(load(study_store.location))
    assert remarks == ["Not counted: 1 older record of configs that have a newer cell."]


def test_holes_are_named(study_store: Store) -> None:
    found = holes(load(study_store.location))
    assert found["status"].value_counts().to_dict() == {"missing": 5, "failed": 1}
    (failed,) = found[found["status"] == "failed"].to_dict("records")
    assert (failed["pair"], failed["losses"], failed["backbone"], failed["seed"]) == (
        "fonts>mnistm", "ce+ssl+dist", "resnet18", 2,
    )  # fmt: skip
    assert failed["error"].startswith("RuntimeError")


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({}, {"git_commit": "fedcba"}, ("commit 0123abc:", "commit fedcba:")),
        ({}, {"git_dirty": True}, ("commit 0123abc:", "commit 0123abc and uncommitted changes:")),
        ({}, {"git_commit": None, "git_dirty": None}, ("commit 0123abc:", "scale-ray of an unknown version:")),
        (
            {"git_commit": None, "git_dirty": None, "versions": {"scale-ray": "0.1.0"}},
            {"git_commit": None, "git_dirty": None, "versions": {"scale-ray": "0.2.0"}},
            ("scale-ray 0.1.0:", "scale-ray 0.2.0:"),
        ),
    ],
)
def test_two_codes_are_refused_by_name(
    make_store: MAKE, first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]
) -> None:
    store = make_store([], planned=[FIRST, SECOND])
    store.write_record(record_of(FIRST, 80.0, **first))
    store.write_record(record_of(SECOND, 84.0, **second))
    text = refusal(store)
    assert "digits: records of several versions of the code:" in text
    for name, config in zip(names, (FIRST, SECOND), strict=True):
        assert f"  {name} 1 record (study s; the first is mnist>mnistm scale ce+ssl lenet" in text
        assert cell_of(config).id in text
    assert text.endswith("accept it with --allow code; every table will say so")
    found, notes = means(store, "code")
    assert found == {("ce+ssl", "lenet"): 82.0}
    assert any(note.startswith("Accepted (--allow code): records of several versions") for note in notes)


def test_code_that_made_no_number_mixes_nothing(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)])
    store.write_record(record_of(SECOND, None, git_commit="fedcba"))
    assert check(load(store.location))[1] == []


def test_uncommitted_changes_of_all_are_remarked(make_store: MAKE) -> None:
    store = make_store([])
    for config in (FIRST, SECOND):
        store.write_record(record_of(config, 80.0, git_dirty=True))
    assert check(load(store.location))[1] == ["2 of 2 records were made by code with uncommitted changes."]


def test_two_versions_of_the_data_are_refused_by_domain(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)])
    store.write_record(record_of(SECOND, 84.0, inputs=REPAIRED))
    text = refusal(store)
    assert "digits: records of several versions of the data or weights:" in text
    assert "  mnist of digest sha-mnist: 1 record" in text
    assert "  mnist of digest sha-repaired: 1 record" in text
    assert "mnistm of" not in text
    found, notes = means(store, "data")
    assert found == {("ce+ssl", "lenet"): 82.0}
    assert any("--allow data" in note for note in notes)


def test_two_contents_of_one_weights_file_are_refused(make_store: MAKE) -> None:
    store = make_store([])
    for config, digest in ((FIRST, "sha-a"), (SECOND, "sha-b")):
        store.write_record(record_of(config, 80.0, inputs=digests(config) | {"weights": digest}))
    assert "  weights of lenet of digest sha-a: 1 record" in refusal(store)


def test_two_versions_of_a_users_code_are_refused(make_store: MAKE) -> None:
    store = make_store([])
    for config, digest in ((FIRST, "sha-a"), (SECOND, "sha-b")):
        store.write_record(record_of(config, 80.0, inputs=digests(config) | {"method mine": digest}))
    assert "  code of method mine of digest sha-a: 1 record" in refusal(store)


def other_study(store: Store, config: TrialConfig, inputs: dict[str, str]) -> None:
    cell = Cell(id=identity(config, inputs), config=config)
    store.write_plan(StudyPlan(name="other", created="x", cells=[cell]))


def test_duplicates_are_refused_and_the_latest_counts_where_allowed(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)], planned=[FIRST])
    other_study(store, FIRST, REPAIRED)
    store.write_record(record_of(FIRST, 90.0, inputs=REPAIRED, started="2026-04-01T00:00:00+00:00"))
    text = refusal(store)
    assert "digits: several cells of one config, which differ in data, weights or recipe:" in text
    for trial in (cell_of(FIRST).id, identity(FIRST, REPAIRED)):
        assert f"{trial} (done, recipe {RECIPE_VERSION}, source sha-" in text
    assert "--allow duplicates,data;" in text
    found, notes = means(store, "duplicates")  # what is left is of one version of the data
    assert found == {("ce+ssl", "lenet"): 90.0}
    assert any("--allow duplicates" in note for note in notes)


def test_a_result_counts_before_a_later_failure(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)], planned=[FIRST])
    other_study(store, FIRST, REPAIRED)
    store.write_record(record_of(FIRST, None, inputs=REPAIRED, started="2026-04-01T00:00:00+00:00"))
    assert means(store, "duplicates")[0] == {("ce+ssl", "lenet"): 80.0}


def test_planned_records_of_two_recipes_are_refused(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)], planned=[FIRST, SECOND])
    store.write_record(record_of(SECOND, 84.0, recipe=RECIPE_VERSION - 1))
    text = refusal(store)
    assert "digits: planned cells whose records are of several recipe versions:" in text
    assert f"  recipe {RECIPE_VERSION - 1}: 1 record (study s" in text
    found, notes = means(store, "recipe")
    assert found == {("ce+ssl", "lenet"): 82.0}
    assert any("--allow recipe" in note for note in notes)


def test_old_records_that_no_study_plans_any_more_mix_nothing(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)], planned=[FIRST])
    store.write_record(record_of(FIRST, 60.0, recipe=RECIPE_VERSION - 1, inputs=REPAIRED, git_commit="old"))
    store.write_record(record_of(SECOND, 60.0, recipe=RECIPE_VERSION - 1, git_commit="old"))
    found, _ = means(store)
    assert found == {("ce+ssl", "lenet"): 80.0}
    assert load(store.location)["status"].value_counts().to_dict() == {"stale": 2, "done": 1}


def test_all_that_is_wrong_is_said_at_once(make_store: MAKE) -> None:
    store = make_store([(FIRST, 80.0)], planned=[FIRST, SECOND])
    store.write_record(record_of(SECOND, 84.0, recipe=RECIPE_VERSION - 1))
    third = FIRST.replace({"seed": 2})
    store.write_record(record_of(third, 84.0, inputs=REPAIRED, git_commit="fedcba"))
    assert re.findall(r"--allow (\S+);", refusal(store)) == ["recipe,code,data"]
    assert re.findall(r"--allow (\S+);", refusal(store, ("recipe", "data"))) == ["code"]


def test_an_unknown_kind_is_refused(study_store: Store) -> None:
    with pytest.raises(ReportError, match="--allow dat: no such kind: choose from recipe, duplicates, code, data"):
        check(load(study_store.location), ["dat"])


def test_a_long_list_is_shortened(make_store: MAKE) -> None:
    store = make_store([])
    for seed in range(12):
        store.write_record(record_of(FIRST.replace({"seed": seed}), 80.0, git_commit=f"{seed:07}", started="x"))
    text = refusal(store)
    assert text.count("commit 0000") == 8
    assert "  and 4 more" in text
