"""Rows of one table: groups by pre-training, which are never compared, and variants beside their method."""

import csv
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from golden_files import assert_golden
from report_stores import OFFICE_HOME, config_of

from scale_ray.config import ModelConfig, TrialConfig
from scale_ray.report import Grid, Stack, grids, load, stacks
from scale_ray.report.effects.tables import effects_tables
from scale_ray.report.read.labels import pre_training
from scale_ray.report.tables.formats import FORMATS
from scale_ray.store import Store
from scale_ray.study import describe

MAKE = Callable[..., Store]
Outcomes = list[tuple[TrialConfig, float | None]]

PAIRS = [("Art", "Clipart"), ("Product", "Clipart"), ("Art", "Product")]
FULL = "ce+ssl+dist+reg"
VARIANTS = {
    ("source_only", "ce"): ({}, 50.0),
    ("cdan", "ce"): ({}, 60.0),
    ("cdan", "ce "): ({"baseline.entropy_conditioning": True}, 61.0),
    ("scale", "ce+ssl"): ({}, 63.0),
    ("scale", FULL): ({}, 70.0),
    ("scale", f"{FULL} "): ({"losses.contrast": "bank"}, 66.0),
    ("scale", f" {FULL}"): ({"losses.contrast": "proto"}, 64.0),
}
ON_CLIP = {"clip_zero_shot": 51.0, "daprompt": 55.0}


def of_clip(method: str, source: str, target: str, seed: int, weights: str = "openai") -> TrialConfig:
    changes = OFFICE_HOME | {"model.weights": weights}
    return config_of(source, target, "ce", "clip_rn50", seed, method=method, **changes)


def table_2() -> Outcomes:
    """Three pairs and seeds of image methods with variants; two of the pairs on CLIP, one cell of which failed."""
    outcomes: Outcomes = []
    for number, (source, target) in enumerate(PAIRS):
        for seed in range(3):
            step = 5.0 * number + 0.4 * seed
            for (method, losses), (changes, accuracy) in VARIANTS.items():
                changes = changes | OFFICE_HOME
                config = config_of(source, target, losses.strip(), "resnet50", seed, method=method, **changes)
                outcomes.append((config, accuracy + step + 0.01 * seed * accuracy))
            for method, accuracy in ON_CLIP.items():
                if target == "Clipart":  # a zero-shot accuracy depends on the target alone
                    failed = (method, source, seed) == ("daprompt", "Art", 2)
                    measured = accuracy + (step if method == "daprompt" else 0)
                    outcomes.append((of_clip(method, source, target, seed), None if failed else measured))
    return outcomes


@pytest.fixture
def found(make_store: MAKE) -> list[Grid]:
    return grids(load(make_store(table_2()).location), published=True)


def one(found: list[Grid], form: str = "pairs_by_method") -> Stack:
    (stack,) = [stack for stack in stacks(found) if (stack.form, stack.metric) == (form, "target_accuracy")]
    return stack


def group(stack: Stack, label: str) -> Grid:
    (grid,) = [grid for grid in stack.grids if grid.group == label]
    return grid


@pytest.mark.parametrize("kind", list(FORMATS))
def test_one_table_of_images_clip_and_published(found: list[Grid], kind: str) -> None:
    assert_golden(f"groups.{kind}", FORMATS[kind]([one(found)]))


def test_a_group_has_its_own_best_and_its_own_keys(found: list[Grid]) -> None:
    stack = one(found)
    assert [grid.group for grid in stack.grids] == ["clip_rn50, openai", "resnet50, imagenet"]
    clip, images = stack.grids
    assert clip.best == frozenset()  # five keys are too few; yet no reason to look at the other group's
    assert images.best == {("scale (ce+ssl+dist+reg)", "average")}
    assert clip.entries["clip_zero_shot", "average"].mean == 51.0
    assert (clip.entries["daprompt", "Art>Clipart"].n, clip.entries["daprompt", "Art>Clipart"].failed) == (2, 1)
    assert images.entries["source_only", "Art>Clipart"].n == 3  # the failure is none of this group's


def test_two_groups_have_a_best_each(make_store: MAKE) -> None:
    outcomes = [(config, accuracy) for config, accuracy in table_2() if config.data.target == "Clipart"]
    outcomes = [(config, 56.0 if accuracy is None else accuracy) for config, accuracy in outcomes]
    clip, images = one(grids(load(make_store(outcomes).location))).grids
    assert clip.best == {("daprompt", "average")}
    assert images.best == {("scale (ce+ssl+dist+reg)", "average")}
    assert clip.entries["daprompt", "average"].mean < images.entries["scale (ce+ssl+dist+reg)", "average"].mean


def test_groups_of_other_pairs_say_so(make_store: MAKE) -> None:
    note = (
        "The groups do not have the same pairs, and each averages over its own: "
        "clip_rn50, openai: 2 pairs; resnet50, imagenet: 3 pairs."
    )
    cells = load(make_store(table_2()).location)
    stack = one(grids(cells))
    assert note in stack.notes
    assert group(stack, "clip_rn50, openai").entries["clip_zero_shot", "Art>Product"].planned == 0
    same = one(grids(cells[cells["target"] == "Clipart"]))
    assert not any(text.startswith("The groups do not have the same pairs") for text in same.notes)


def test_notes_say_whose_they_are(found: list[Grid]) -> None:
    notes = one(found).notes
    assert "clip_rn50, openai: † 1 of 3 failed: daprompt / Art>Clipart." in notes
    assert "Percent, last iterate. Mean ± sample standard deviation over n seeds." not in notes  # 3 seeds in one group
    assert sum(note.startswith("published: figures of other authors") for note in notes) == 1


def test_published_rows_stand_on_the_measured_ones_of_their_pre_training(found: list[Grid]) -> None:
    clip, images = one(found).grids
    assert clip.rows == ["clip_zero_shot", "daprompt"]
    assert clip.all_rows == ["clip_zero_shot", "daprompt", "ad_clip"]
    assert clip.beside_figure(("clip_zero_shot", "Art>Clipart (published)")) == (51.6, None)
    assert images.beside_figure(("clip_zero_shot", "Art>Clipart (published)")) == (None, None)
    assert images.all_rows[-2:] == ["mcc", "shot"]


def test_published_rows_of_other_pre_training_are_a_group_of_their_own(make_store: MAKE) -> None:
    """A file may hold any weights; random ones are not the authors'."""
    store = make_store([(of_clip("daprompt", "Art", "Clipart", 0, weights="/weights/RN50.pth"), 55.0)])
    stack = one(grids(load(store.location), published=True))
    assert [(grid.group, bool(grid.rows)) for grid in stack.grids] == [
        ("clip_rn50, RN50.pth", True),
        ("clip_rn50, openai", False),
        ("resnet50, imagenet", False),
    ]
    assert stack.grids[0].beside == []
    assert stack.beside == ["Art>Clipart (published)"]


def test_files_of_one_name_are_never_averaged(make_store: MAKE) -> None:
    outcomes = [
        (of_clip("daprompt", "Art", "Clipart", seed, weights=f"/{folder}/RN50.pth"), 50.0 + 10 * seed)
        for seed, folder in enumerate(["here", "there"])
    ]
    found = [grid for grid in grids(load(make_store(outcomes).location)) if grid.metric == "target_accuracy"]
    assert {grid.facet: [entry.mean for entry in grid.entries.values()] for grid in found} == {
        "model.weights=/here/RN50.pth": [50.0],
        "model.weights=/there/RN50.pth": [60.0],
    }
    assert {grid.group for grid in found} == {"clip_rn50, RN50.pth"}


def test_files_of_one_name_are_never_compared(make_store: MAKE) -> None:
    """Each is that of one method, so that no entry averages both; their rows would still stand in one table."""
    outcomes = [
        (of_clip(method, "Art", "Clipart", seed, weights=f"/{folder}/RN50.pth"), accuracy)
        for folder, method, accuracy in (("here", "daprompt", 50.0), ("there", "ad_clip", 60.0))
        for seed in range(2)
    ]
    found = [grid for grid in grids(load(make_store(outcomes).location)) if grid.metric == "target_accuracy"]
    assert {grid.facet: grid.rows for grid in found} == {
        "model.weights=/here/RN50.pth": ["daprompt"],
        "model.weights=/there/RN50.pth": ["ad_clip"],
    }


@pytest.mark.parametrize(
    ("backbone", "weights", "label"),
    [
        ("resnet50", "imagenet", "resnet50, imagenet"),
        ("clip_rn50", "openai", "clip_rn50, openai"),
        ("lenet", "none", "lenet, random weights"),
        ("mobilenet_v2", "/home/me/weights/mobilenet_v2.pth", "mobilenet_v2, mobilenet_v2.pth"),
    ],
)
def test_what_a_group_is_called(backbone: str, weights: str, label: str) -> None:
    assert pre_training(ModelConfig(backbone=backbone, weights=weights)) == label


def test_every_writer_parts_the_groups_by_a_rule_and_a_label(found: list[Grid]) -> None:
    stack = one(found)
    labels, width = ["clip_rn50, openai", "resnet50, imagenet"], 1 + len(stack.columns) + len(stack.beside)
    tex = FORMATS["tex"]([stack])
    body = tex.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    found_labels = re.findall(r"\\midrule\n *\\multicolumn\{(\d+)\}\{l\}\{\\textit\{(.*)\}\} \\\\\n", body)
    assert [(int(columns), label.replace("\\_", "_")) for columns, label in found_labels] == [
        (width, label) for label in labels
    ]
    assert body.count(r"\midrule") == 2
    (table, _) = ElementTree.fromstring(f"<div>{FORMATS['html']([stack])}</div>")
    heads = [body.find("tr/th") for body in table.findall("tbody")]
    assert [(head.text, head.get("scope"), head.get("colspan")) for head in heads if head is not None] == [
        (label, "rowgroup", str(width)) for label in labels
    ]
    rows = [line.split("|")[1].strip() for line in FORMATS["md"]([stack]).splitlines() if line.startswith("| ")]
    assert [row for row in rows if row.startswith("*")] == [r"*clip_rn50, openai*", "*resnet50, imagenet*"]
    assert rows.index("*clip_rn50, openai*") < rows.index("daprompt") < rows.index("*resnet50, imagenet*")
    lines = csv.DictReader(FORMATS["csv"]([stack]).splitlines())
    assert {line["row"]: line["group"] for line in lines if line["row"] in ("daprompt", "mcc")} == {
        "daprompt": labels[0],
        "mcc": labels[1],
    }


# Variants


def test_variants_are_rows_beside_their_kin(found: list[Grid]) -> None:
    images = group(one(found), "resnet50, imagenet")
    assert images.rows == [
        "source_only",
        "cdan",
        "cdan+E",
        "scale (ce+ssl)",
        "scale (ce+ssl+dist+reg)",
        "scale bank (ce+ssl+dist+reg)",
        "scale proto (ce+ssl+dist+reg)",
    ]
    assert images.facet == ""
    means = {row: images.entries[row, "Art>Clipart"].mean for row in images.rows}
    assert means["cdan+E"] == pytest.approx(means["cdan"] + 1.0, abs=0.02)
    note = "Methods, combinations or backbones differ in losses.contrast as well: bank, dist, proto."
    assert note in images.notes


def test_variants_of_scale_are_rows_of_table_1(found: list[Grid]) -> None:
    (grid,) = one(found, "losses_by_backbone").grids
    assert grid.rows == [
        "ce",
        "ce+ssl",
        "ce+ssl+dist+reg",
        "ce+ssl+dist+reg (scale bank)",
        "ce+ssl+dist+reg (scale proto)",
    ]
    assert grid.facet == ""


def test_variants_have_differences_from_the_baseline(make_store: MAKE) -> None:
    differences = effects_tables(load(make_store(table_2()).location)).frames["differences"].set_index("label")
    assert differences.loc["cdan+E", "estimate"] == pytest.approx(differences.loc["cdan", "estimate"] + 1.01)
    assert differences.loc["ce+ssl+dist+reg (scale bank)", "keys"] == 9


def test_a_study_of_one_contrast_alone_is_written_as_any_other(make_store: MAKE) -> None:
    """Else a factorial with it would have no effects."""
    outcomes: Outcomes = []
    for losses in ("ce", "ce+dist"):
        config = config_of("mnist", "mnistm", losses, "lenet", 0).replace({"losses.contrast": "proto"})
        outcomes.append((config, 50.0))
    found = grids(load(make_store(outcomes).location))
    assert one(found, "losses_by_backbone").grids[0].rows == ["ce", "ce+dist"]
    assert one(found).grids[0].rows == ["source_only", "scale proto (ce+dist)"]


def test_a_contrast_that_differs_where_nothing_reads_it_splits_as_any_field_does(make_store: MAKE) -> None:
    outcomes: Outcomes = [
        (config_of("mnist", "mnistm", "ce+ssl", "lenet", seed, **{"losses.contrast": contrast}), 50.0 + seed)
        for seed, contrast in enumerate(["dist", "bank"])
    ]
    found = grids(load(make_store(outcomes).location))
    facets = {stack.grids[0].facet for stack in stacks(found) if stack.form == "pairs_by_method"}
    assert facets == {"losses.contrast=bank", "losses.contrast=dist"}


@pytest.mark.parametrize("axes", [("method", "pair"), ("losses.contrast", "method"), ("method", "losses")])
def test_tables_of_named_axes_split_by_what_makes_variants(make_store: MAKE, axes: tuple[str, str]) -> None:
    from scale_ray.report import tabulate

    cells: Any = load(make_store([pair for pair in table_2() if pair[0].method == "scale"]).location)
    found = [grid for grid in tabulate(cells, *axes) if grid.metric == "target_accuracy"]
    assert {grid.facet for grid in found} == (
        {""} if "losses.contrast" in axes else {f"losses.contrast={value}" for value in ("bank", "dist", "proto")}
    )


def test_a_frozen_encoder_is_named_in_every_table_and_shares_none_with_a_trained_one(make_store: MAKE) -> None:
    imagenet, frozen = {"model.weights": "imagenet"}, {"model.weights": "imagenet", "model.encoder": "frozen"}
    outcomes = [
        (config_of("mnist", "mnistm", losses, "resnet50", 0, **changes), accuracy)
        for changes, accuracy in ((imagenet, 60.0), (frozen, 50.0))
        for losses in ("ce", "ce+ssl")
    ]
    store = make_store(outcomes)
    found = [grid for grid in grids(load(store.location)) if grid.metric == "target_accuracy"]
    columns = {grid.form: grid.columns for grid in found}
    assert columns["losses_by_backbone"] == ["resnet50", "resnet50 (frozen)"]
    groups = {grid.group: {entry.mean for entry in grid.entries.values()} for grid in found if grid.group}
    assert groups == {"resnet50, imagenet": {60.0}, "resnet50 (frozen), imagenet": {50.0}}
    assert describe(outcomes[-1][0]) == "mnist>mnistm ce+ssl resnet50 (frozen) seed 0"
