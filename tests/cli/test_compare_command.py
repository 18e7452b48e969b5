"""`scale-ray compare`: the planned comparison, and the comparisons that it refuses."""

import re
from pathlib import Path

import pytest
import torch
from commands import TINY, Outcome, command, refused

from scale_ray.models import build_encoder


def compare(images: Path, store: Path, *more: str) -> Outcome:
    settings = [
        argument for argument in TINY if argument.partition("=")[0].partition(".")[0] in ("data", "optim", "model")
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    grid = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    usual = ["--pairs", "Art:Real World", "--seeds", "1", "--dry-run"]
    return command("compare", *grid, *usual, "--steps", "50", *options, "--store", store, *more)


def test_a_comparison_plans_every_method_and_says_whose_it_is(images: Path, tmp_path: Path) -> None:
    outcome = compare(images, tmp_path, "--methods", "source_only, dann, scale:ce+ssl, scale, mcc@mobilenet_v2=none")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    cells = [re.sub("  +", " | ", line[14:]) for line in lines if line.endswith("to do")]
    assert cells == [
        "Art>Real World ce lenet seed 0 | to do",
        "Art>Real World dann lenet seed 0 | to do",
        "Art>Real World ce+ssl lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg lenet seed 0 | to do",
        "Art>Real World mcc mobilenet_v2 seed 0 | to do",
    ]
    assert "dann: 2.0 x the passes of source_only" in lines
    assert "scale ce+ssl: 2.7 x the passes of source_only" in lines
    assert any("https://arxiv.org/abs/1505.07818" in line for line in lines)


def test_variants_of_a_method_stand_beside_it(images: Path, tmp_path: Path) -> None:
    methods = (
        "cdan, cdan / baseline.entropy_conditioning=true, scale, scale/losses.contrast=bank, "
        "scale:ce+dist/losses.contrast=proto@mobilenet_v2=none"
    )
    outcome = compare(images, tmp_path, "--methods", methods)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    cells = [re.sub("  +", " | ", line[14:]) for line in lines if line.endswith("to do")]
    assert cells == [
        "Art>Real World cdan lenet seed 0 | to do",
        "Art>Real World cdan+E lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg (scale bank) lenet seed 0 | to do",
        "Art>Real World ce+dist (scale proto) mobilenet_v2 seed 0 | to do",
    ]
    assert "cdan+E: 2.0 x the passes of source_only" in lines
    assert "scale bank ce+ssl+dist+reg: 3.0 x the passes of source_only" in lines


def test_all_methods_that_need_no_extra_are_compared_by_default(images: Path, tmp_path: Path) -> None:
    outcome = compare(images, tmp_path)
    assert "comparison-image_folder: 8 cells, 0 done, 8 to do" in outcome.out
    assert "prototypes" not in outcome.out


def test_a_comparison_on_a_pre_trained_encoder_has_the_prototypes_too(images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(build_encoder("lenet", "none").state_dict(), weights)
    outcome = compare(images, tmp_path, "--weights", str(weights))
    assert "comparison-image_folder: 9 cells, 0 done, 9 to do" in outcome.out
    assert "Art>Real World prototypes lenet seed 0" in outcome.out


def test_a_comparison_that_keeps_predictions_may_choose_by_them(images: Path, tmp_path: Path) -> None:
    outcome = compare(images, tmp_path, "--methods", "dann,mcc", "--choose", "ensv", "--keep-predictions")
    assert outcome.status == 0, outcome.err
    assert compare(images, tmp_path, "--methods", "dann,mcc", "--choose", "im").status == 0


def test_a_setting_of_the_baselines_goes_to_those_that_read_it(images: Path, tmp_path: Path) -> None:
    """So that the other methods' cells stay what they were."""

    def ids(*more: str) -> list[str]:
        outcome = compare(images, tmp_path, "--methods", "source_only,mcc,dann,scale", *more)
        return [line.partition(" ")[0] for line in outcome.out.splitlines() if line.endswith("to do")]

    usual, softer = ids(), ids("--set", "baseline.mcc_temperature=2")
    assert [one == other for one, other in zip(usual, softer, strict=True)] == [True, False, True, True]


def test_a_setting_that_some_methods_do_not_read_renames_none_of_these(images: Path, tmp_path: Path) -> None:
    """What is about pseudo-labels is for those that have some."""
    settings = ["--set", "losses.alignment=source", "--set", "views.source=alternating"]
    outcome = compare(images, tmp_path, "--methods", "source_only,mcc,scale,scale:ce+mcc", *settings)
    assert outcome.status == 0, outcome.err
    cells = [re.sub("  +", " | ", line[14:]) for line in outcome.out.splitlines() if line.endswith("to do")]
    assert cells == [
        "Art>Real World ce (source_only strong-source) lenet seed 0 | to do",
        "Art>Real World mcc strong-source lenet seed 0 | to do",
        "Art>Real World ce+ssl+dist+reg (scale strong-source source-aligned) lenet seed 0 to do",
        "Art>Real World ce+mcc (scale strong-source) lenet seed 0 | to do",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "source_only,dan2"], ["unknown method 'dan2'", "did you mean 'dan'"]),
        (["--methods", "dann:ce+ssl"], ["method 'dann' trains with ce alone"]),
        (["--methods", "dann@lenett"], ["unknown model.backbone 'lenett'"]),
        (["--methods", "dann@lenet=weights.pth"], ["no file 'weights.pth'"]),
        (
            ["--methods", "scale/losses.contrast"],
            ["--methods: method 'scale/losses.contrast'", "sets nothing: write FIELD=VALUE"],
        ),
        (["--methods", "scale/losses.contrst=bank"], ["unknown field 'losses.contrst'", "'losses.contrast'"]),
        (["--methods", "scale/losses.contrast=banks"], ["losses.contrast: Input should be", "'banks'"]),
        (
            ["--methods", "scale/losses.threshold=0.9"],
            ["losses.threshold is not a variant of a method", "losses.contrast", "with --set"],
        ),
        (
            ["--methods", "dann/baseline.entropy_conditioning=true"],
            ["baseline.entropy_conditioning is True, which method 'dann' does not read (cdan, sdat, mic do)"],
        ),
        (
            ["--methods", "scale:ce+ssl/losses.contrast=bank"],
            ["losses.contrast is a setting of loss term 'dist', and ce+ssl is trained"],
        ),
        (
            ["--methods", "dann/losses.thresholding=flex"],
            ["losses.thresholding is 'flex', which 'dann flex' does not read: leave it at 'fixed'"],
        ),
        (
            ["--methods", "scale:ce+mcc/losses.pseudo_labels=neighbours"],
            ["losses.pseudo_labels is 'neighbours', which 'ce+mcc (scale neighbours)' does not read"],
        ),
        (["--methods", "scale,scale/losses.contrast=dist"], ["plans one cell twice"]),
        (["--methods", "dann,dann"], ["plans one cell twice (Art>Real World dann lenet seed 0)"]),
        (["--methods", ""], ["axis 'method' has no values"]),
        (["--choose", "env"], ["unknown validator 'env'", "did you mean 'ensv'"]),
        (
            ["--methods", "dann,mcc", "--choose", "ensv"],
            ["--choose ensv reads stored predictions, which 2 of 2 cells lack: add --keep-predictions"],
        ),
        (["--set", "method=dann"], ["--set method: the grid decides it", "--methods"]),
        (["--set", "seed=1"], ["--set seed: the grid decides it", "--seeds"]),
    ],
)
def test_comparisons_that_cannot_be_are_refused(
    images: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    refused(compare(images, tmp_path, *arguments), *words)
