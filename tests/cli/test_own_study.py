"""A study of one's own: from a script and by `--axis`."""

from pathlib import Path

import pytest
from commands import Outcome, command, refused

from scale_ray import Study, base_config, combinations, main, pairs


def own_study() -> Study:
    """batch_norm x threshold x loss combinations, without thresholds where nothing reads them."""
    base = base_config("image_folder", {"model.backbone": "lenet", "model.weights": "none"}, steps=50)
    axes = {
        "seed": [0, 1],
        "pair": pairs("Art:Real World"),
        "losses": combinations("ce", "ce+ssl"),
        "model.batch_norm": ["joint", "domain"],
        "losses.threshold": [0.7, 0.8],
    }
    return Study("mine", base, axes)


def script(study: Study, images: Path, store: Path, *arguments: str, **defaults: object) -> Outcome:
    given = {"root": str(images), "store": str(store)} | defaults
    return command("--dry-run", *arguments, program=lambda: main(study, **given))


def ids_of(outcome: Outcome) -> list[str]:
    assert outcome.status == 0, outcome.err
    return [line.partition("  ")[0] for line in outcome.out.splitlines() if line.endswith("to do")]


def test_a_study_of_ones_own_has_the_command_line(images: Path, tmp_path: Path) -> None:
    everything = script(own_study(), images, tmp_path)
    assert "mine: 16 cells, 0 done, 16 to do" in everything.out
    narrowed = script(own_study(), images, tmp_path, "--seeds", "1", "--losses", "ce+ssl", "--name", "less")
    assert "less: 4 cells, 0 done, 4 to do" in narrowed.out
    assert set(ids_of(narrowed)) < set(ids_of(everything))


def test_the_same_study_by_axis_options(images: Path, tmp_path: Path) -> None:
    grid = ["--pairs", "Art:Real World", "--losses", "ce,ce+ssl", "--seeds", "2", "--dry-run"]
    trial = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    axes = ["--axis", "model.batch_norm=joint,domain", "--axis", "losses.threshold=0.7,0.8"]
    outcome = command("ablate", *grid, *trial, *axes, "--steps", "50", "--store", str(tmp_path))
    assert sorted(ids_of(outcome)) == sorted(ids_of(script(own_study(), images, tmp_path)))


def test_an_encoder_of_timm_brings_the_size_of_its_images(images: Path, tmp_path: Path) -> None:
    timms = base_config("image_folder", {"model.backbone": "timm:test_vit", "model.weights": "none"})
    own = Study("timms", timms, {"pair": pairs("Art:Real World")})
    begun = ids_of(script(own, images, tmp_path))
    named = ("--set", "data.image_size=160", "--set", "data.resize=168")  # timm's crop_pct is 0.95
    assert ids_of(script(own, images, tmp_path, *named)) == begun
    assert ids_of(script(own, images, tmp_path, *named[:2], "--set", "data.resize=176")) != begun
    trial = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "timm:test_vit"]
    grid = ["--pairs", "Art:Real World", "--losses", "ce+ssl+dist+reg", "--seeds", "1", "--dry-run"]
    outcome = command("ablate", *grid, *trial, "--store", str(tmp_path))
    assert ids_of(outcome) == begun
    usual = Study(
        "usual", timms.replace({"model.backbone": "lenet", "data.image_size": 224, "data.resize": 256}), own.axes
    )
    other = script(own, images, tmp_path, "--backbone", "lenet")
    assert ids_of(other) == ids_of(script(usual, images, tmp_path))


def test_a_filtered_study_of_ones_own(images: Path, tmp_path: Path) -> None:
    filtered = own_study().where(lambda config: config.combination != "ce" or config.losses.threshold == 0.8)
    assert "mine: 12 cells" in script(filtered, images, tmp_path).out
    assert "mine: 6 cells" in script(filtered, images, tmp_path, "--seeds", "7,").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--axis", "losses.threshold"], ["--axis 'losses.threshold': write PATH=VALUE,VALUE"]),
        (
            ["--axis", "losses.thresold=1,2"],
            ["--axis losses.thresold: no such field", "'losses.threshold'"],
        ),
        (["--axis", "pair=Art:Real World"], ["--axis pair: it sets several fields: use --pairs"]),
        (["--axis", "seed=1", "--seeds", "3"], ["--axis seed, --seeds: both set the same axis"]),
        (["--axis", "optim.steps=4,8", "--steps", "6"], ["--steps optim.steps: the grid decides it"]),
        (["--axis", "model.weights=none,imagenet", "--weights", "none"], ["--weights model.weights: the grid decides"]),
        (["--axis", "optim.momentum=0.9,2"], ["optim.momentum: Input should be less than 1"]),
        (["--axis", "optim.momentum=0.9", "--axis", "optim.momentum=0.8"], ["--axis optim.momentum: given twice"]),
        (["--axis", "seed=1,2", "--set", "seed=3"], ["--set seed: the grid decides it: use --seeds"]),
        (["--set", "losses.threshold=0.9"], ["--set losses.threshold: the grid decides it: use --axis losses.thres"]),
        (["--losses", "ce", "--methods", "dann"], ["--losses, --methods: both set the method"]),
    ],
)
def test_axes_that_cannot_be_are_refused(images: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(script(own_study(), images, tmp_path, *arguments), *words)


def test_another_benchmark_brings_its_own_pairs_and_backbones(tmp_path: Path) -> None:
    base = base_config("office_home")
    axes = {"pair": pairs("Art:Clipart"), "model.backbone": ["resnet50"], "losses": combinations("ce+ssl")}
    study = Study("grid-office_home", base, axes)
    outcome = command("--dry-run", "--benchmark", "digits", program=lambda: main(study, store=str(tmp_path)))
    assert outcome.status == 0, outcome.err
    assert "grid-digits: 4 cells" in outcome.out
    assert "mnist>mnistm ce+ssl lenet seed 0" in outcome.out


def test_a_benchmark_without_usual_pairs_needs_one(images: Path, tmp_path: Path) -> None:
    study = Study("grid", base_config("digits"), {"pair": pairs("mnist:mnistm"), "losses": combinations("ce")})
    outcome = script(study, images, tmp_path, "--benchmark", "image_folder")
    refused(outcome, "image_folder has no usual domain pair: name one with --pairs")


def test_the_method_is_an_axis_like_any_field(images: Path, tmp_path: Path) -> None:
    study = Study("methods", own_study().base.replace({"losses.terms": "ce"}), {"pair": pairs("Art:Real World")})
    outcome = script(study, images, tmp_path, "--axis", "method=mcc,dann", "--set", "baseline.mcc_temperature=2")
    assert len(ids_of(outcome)) == 2
    assert "mcc lenet seed 0" in outcome.out
    assert "dann lenet seed 0" in outcome.out


def test_a_default_for_an_option_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="benchmrk"):
        main(own_study(), benchmrk="digits")
