from collections.abc import Callable
from pathlib import Path

import pytest
from report_stores import config_of, office_home_grid

from scale_ray.report import Grid, Stack, grids, load, stacks
from scale_ray.report.tables.csv import comma_separated
from scale_ray.report.tables.html import html
from scale_ray.report.tables.latex import latex
from scale_ray.report.tables.markdown import markdown
from scale_ray.report.tables.published import beside_ablation, beside_methods
from scale_ray.store import Store

MAKE = Callable[..., Store]


@pytest.fixture
def found(make_store: MAKE) -> list[Grid]:
    outcomes = office_home_grid(seeds=1, combinations=["ce", "ce+ssl+dist+reg"], backbones=["resnet50"])
    return grids(load(make_store(list(outcomes)).location, oracle=True), published=True, oracle=True)


def of(found: list[Grid], form: str, metric: str = "target_accuracy") -> Stack:
    (stack,) = [stack for stack in stacks(found) if (stack.form, stack.metric) == (form, metric)]
    return stack


def test_the_ablation_as_printed() -> None:
    beside = beside_ablation("office_home", ["lenet", "resnet50", "resnet101"])
    assert beside is not None
    assert beside.columns == ["resnet50 (published)", "resnet101 (published)"]
    assert beside.figures["ce+ssl+dist+reg", "resnet50 (published)"] == (75.5, 0.4)
    assert beside.figures["ce+dist+reg", "resnet101 (published)"] == (81.0, 0.7)
    assert len(beside.rows) == 7
    notes = "\n".join(beside.notes)
    assert "SCALE, Table 1, on ImageNet weights" in notes
    assert "published ce+ssl: ticks printed as ce only; read as ce+ssl from section 5.4." in notes
    assert "the paper's ResNet-108 is read as resnet101" in notes
    assert "ResNet-50 is read" not in notes
    assert beside_ablation("office_home", ["lenet"]) is None
    assert beside_ablation("pacs", ["resnet50"]) is None


def test_other_methods_with_their_sources_and_misprints() -> None:
    groups = beside_methods("office_home", ["Art>Clipart", "Real_World>Product", "average"])
    assert set(groups) == {"resnet50, imagenet", "clip_rn50, openai"}
    beside = groups["resnet50, imagenet"]
    assert beside.figures["scale (ce+ssl+dist+reg)", "Art>Clipart (published)"] == (64.40, None)
    assert beside.figures["mcc", "Real_World>Product (published)"] == (85.6, None)
    assert beside.figures["source_only", "average (published)"] == (60.91, None)
    assert beside.rows == ["source_only", "scale (ce+ssl+dist+reg)", "mcc", "shot"]
    notes = "\n".join(beside.notes)
    assert "published shot: SHOT results page." in notes
    assert "published mcc: best epoch on target." in notes
    of_clip = groups["clip_rn50, openai"]
    assert of_clip.rows == ["clip_zero_shot", "daprompt", "ad_clip"]
    assert of_clip.figures["clip_zero_shot", "Real_World>Product (published)"] == (71.1, None)  # as printed
    (misprints,) = [note for note in of_clip.notes if "are misprints" in note]
    assert misprints.startswith("published clip_zero_shot: as printed; zero-shot CLIP depends on the target alone")
    assert beside_methods("office_home", ["mnist>mnistm"]) == {}
    assert beside_methods("digits", ["mnist>mnistm"]) == {}


def test_digits_with_their_sources_and_their_protocol() -> None:
    columns = ["mnist>mnistm", "mnist>usps", "usps>mnist", "svhn>mnist", "average"]
    (group, beside), *none = beside_methods("digits_standard", columns).items()
    assert (group, none) == ("lenet, random weights", [])
    assert beside.columns == [f"{column} (published)" for column in columns[:4]]
    assert beside.figures["dann", "mnist>mnistm (published)"] == (76.66, None)
    assert beside.figures["shot", "svhn>mnist (published)"] == (98.9, None)
    assert beside.figures["cdan+E", "usps>mnist (published)"] == (98.0, None)
    assert ("cdan", "mnist>mnistm (published)") not in beside.figures  # nobody's figure was found
    assert [of for of, column in beside.figures if column == "mnist>mnistm (published)"] == ["dann"]
    notes = "\n".join(beside.notes)
    assert "on the target's test split, which no training saw. Measured here: on its training split" in notes
    assert "published source_only, shot: SHOT results page." in notes
    assert "published adda: mnist>usps and usps>mnist on a sample of the training images." in notes


def test_the_page_of_the_digits_has_the_same_figures() -> None:
    pairs = ["mnist>mnistm", "mnist>usps", "usps>mnist", "svhn>mnist"]
    (beside,) = beside_methods("digits_standard", pairs).values()
    page = (Path(__file__).parents[3] / "docs" / "standard_digits.md").read_text()
    _, _, table = page.partition(f"| method | {' | '.join(pairs)} |\n|---|---|---|---|---|\n")
    lines = [line.strip("|").split("|") for line in table.partition("\n\n")[0].splitlines()]
    shown = {
        (method.split("`")[1], f"{pair} (published)"): (float(figure.strip(" †‡")), None)
        for method, *figures in lines
        for pair, figure in zip(pairs, figures, strict=True)
        if figure.strip()
    }
    assert shown == beside.figures


def test_digits_beside_measured_ones(make_store: MAKE) -> None:
    changes = {"data.benchmark": "digits_standard"}
    outcomes = [
        (config_of(*pair, "ce", "lenet", 0, method=method, **changes), 50.0)
        for pair in (("mnist", "mnistm"), ("svhn", "mnist"))
        for method in ("source_only", "dann")
    ]
    found = grids(load(make_store(outcomes).location), published=True)
    (grid,) = of(found, "pairs_by_method").grids
    assert grid.rows == ["source_only", "dann"]
    assert {"mcd", "cycada"} <= set(grid.all_rows)
    text = markdown(of(found, "pairs_by_method"))
    row = next(line for line in text.splitlines() if line.startswith("| dann"))
    assert [part.strip() for part in row.strip("|").split("|")][1:] == ["50.0", "50.0", "50.0", "76.7", "73.8"]


def test_they_stand_beside_and_never_among(found: list[Grid]) -> None:
    table_2 = of(found, "pairs_by_method")
    assert len(table_2.columns) == 13
    of_clip, measured = table_2.grids
    assert (of_clip.group, of_clip.rows) == ("clip_rn50, openai", [])
    assert of_clip.all_rows == ["clip_zero_shot", "daprompt", "ad_clip"]
    assert measured.group == "resnet50, imagenet"
    assert measured.rows == ["source_only", "scale (ce+ssl+dist+reg)"]
    assert {"shot", "mcc"} <= set(measured.all_rows)
    text = markdown(table_2)
    row = next(line for line in text.splitlines() if line.startswith("| shot"))
    assert [part.strip() for part in row.strip("|").split("|")][1:14] == ["—"] * 13
    for metric in ("teacher_accuracy", "source_val_accuracy"):
        assert of(found, "pairs_by_method", metric).beside == []
    for write in (markdown, latex, html):
        assert "(published)" in write(of(found, "losses_by_backbone"))
    lines = comma_separated(stacks(found))
    assert "office_home,,target_accuracy,,ce,resnet50 (published),61.0000,0.6000,,,,,,,,,,61.0 ± 0.6" in lines
    assert 'office_home,,target_accuracy,"clip_rn50, openai",ad_clip,average (published),75.9100,' in lines


def test_only_for_office_home_and_only_where_asked(make_store: MAKE, found: list[Grid]) -> None:
    digits = make_store([(config_of("mnist", "mnistm", "ce", "resnet50", 0), 40.0)])
    cells = load(digits.location)
    assert not any(grid.beside for grid in grids(cells[cells["benchmark"] == "digits"], published=True))
    assert not any(grid.beside for grid in grids(cells))


def test_the_best_epoch_is_named_for_what_it_is_and_is_no_headline(found: list[Grid]) -> None:
    (table_1,) = of(found, "losses_by_backbone").grids
    oracle, published = table_1.beside
    assert oracle.columns == ["resnet50 oracle (best epoch on target labels)"]
    assert table_1.columns == ["resnet50"]
    mean = table_1.entries["ce", "resnet50"].mean
    assert oracle.figures["ce", oracle.columns[0]] == (mean, None)  # these curves rise to their end
    assert "oracle (best epoch on target labels): the highest point of each curve" in "\n".join(Stack([table_1]).notes)
    assert published.columns == ["resnet50 (published)"]
    assert {grid.metric for grid in found} == {"target_accuracy", "teacher_accuracy", "source_val_accuracy"}
