"""`scale-ray tune`: the planned search, and the searches that it refuses."""

from pathlib import Path

import pytest
from commands import Outcome, command, refused


def tune(images: Path, *more: str | Path) -> Outcome:
    known = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    return command("tune", *known, "--pairs", "Art:Real World", "--steps", "50", *more)


def test_dry_run_of_a_search_says_what_it_would_take(images: Path, tmp_path: Path) -> None:
    outcome = tune(images, "--trials", "8", "--seeds", "2", "--dry-run", "--store", tmp_path / "store")
    assert outcome.status == 0
    first, second = outcome.out.splitlines()
    assert first == (
        "tuning-image_folder: 8 settings x 2 repeats (Art>Real World seed 0, Art>Real World seed 1), "
        "at most 16 trainings of 50 steps, warm-ups shared where they are the same"
    )
    assert (
        "losses.threshold 0.5 to 0.95 by 0.05, losses.temperature 0.03 to 1 (log); chosen by im; sampler tpe" in second
    )
    assert not (tmp_path / "store").exists()


def test_many_fields_at_once_warn(images: Path) -> None:
    fields = ["losses.threshold", "losses.temperature", "optim.momentum", "data.gamma", "optim.weight_decay"]
    space = [text for field in fields for text in ("--space", f"{field}=float:0.1:0.5")]
    assert "warning" not in tune(images, *space, "--dry-run").out
    more = tune(images, *space, "--space", "optim.learning_rate=float:0.001:0.1:log", "--dry-run")
    assert "warning: 6 fields are tuned at once" in more.out


def test_a_search_across_methods_by_a_score_of_certainty_warns(images: Path) -> None:
    across = ["--losses", "ce", "--set", "method=mcc", "--space", "method=source_only|mcc", "--trials", "2"]
    warned = tune(images, *across, "--dry-run")
    assert warned.status == 0, warned.err
    assert (
        "warning: im ranks trainings of one method and loss combination only, and --space varies method" in warned.out
    )
    assert "warning" not in tune(images, *across, "--validator", "reverse", "--dry-run").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "seed=3"], ["--set seed: the grid decides it", "--seeds"]),
        (["--set", "data.target=Art"], ["--set data.target: the grid decides it", "--pairs"]),
        (["--validator", "ims"], ["unknown validator 'ims'", "did you mean 'im'"]),
        (["--validator", "ensv"], ["--validator ensv: it scores finished trainings among each other"]),
        (
            ["--validator", "mixval", "--early-stop", "asha", "--set", "evaluate_every=10"],
            ["--early-stop asha needs a score at every point, and mixval is measured at the last one only"],
        ),
        (["--sampler", "tpo"], ["unknown sampler 'tpo'"]),
        (["--early-stop", "asah"], ["unknown early stop 'asah'"]),
        (["--early-stop", "asha", "--set", "evaluate_every=1000"], ["no point of the curve", "lower evaluate_every"]),
        (["--space", "losses.threshold=float:0.5"], ["--space", "float:LOW:HIGH"]),
        (["--name", "my search"], ["study 'my search': the name is a file's"]),
        (["--seeds", "0"], ["--seeds 0: write 1 or more"]),
        (["--seeds", "1,1"], ["plans one cell twice", "give each once"]),
        (["--space", "losses.threshold=0.7|0.8", "--trials", "3"], ["the space has 2 settings"]),
    ],
)
def test_searches_that_cannot_be_are_refused(images: Path, arguments: list[str], words: list[str]) -> None:
    refused(tune(images, "--dry-run", *arguments), *words)
