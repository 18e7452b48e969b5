"""`scale-ray auto`: the candidates that fit, within a budget, and the choice."""

from pathlib import Path

import pandas as pd
import pytest
from commands import TINY, Outcome, command, refused

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.store import Store
from scale_ray.training.candidates import CANDIDATES, affordable


def auto(images: Path, store: Path, *more: str) -> Outcome:
    settings = [each for each in TINY if each.partition(".")[0] in ("data", "optim", "model")]
    options = [text for setting in settings for text in ("--set", setting)]
    grid = ["--benchmark", "image_folder", "--root", str(images), "--backbone", "lenet", "--pairs", "Art:Real World"]
    return command("auto", *grid, *options, "--steps", "50", "--store", store, *more)


TEXTS = list(CANDIDATES)
BASE = TrialConfig().replace({"optim.steps": 100, "optim.warmup_steps": 10, "model.weights": "imagenet"})


def methods(budget: float | None) -> list[str]:
    return [change["method"] for change in affordable(BASE, {}, budget).changes]


def test_candidates_come_cheapest_first() -> None:
    assert methods(None) == ["prototypes", "source_only", "mcc", "cdan", "scale", "scale", "scale"]
    assert affordable(BASE, {}).left_out == {}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (50, ["prototypes"]),
        (100, ["prototypes", "source_only"]),
        (299, ["prototypes", "source_only"]),
        (300, ["prototypes", "source_only", "mcc"]),
        (800, ["prototypes", "source_only", "mcc", "cdan", "scale"]),
    ],
)
def test_a_budget_takes_the_cheapest(budget: int, expected: list[str]) -> None:
    """100 steps of source_only cost 100, mcc and cdan 200 each, scale 300 and with mcc in place of contrast 367."""
    assert methods(budget) == expected


def test_what_is_left_out_is_named_with_its_reason() -> None:
    left_out = affordable(BASE.replace({"model.weights": "none"}), {}, 800).left_out
    assert list(left_out) == ["prototypes", TEXTS[-1], TEXTS[-3]]
    assert "compares features of a pre-trained encoder, and model.weights is 'none'" in left_out["prototypes"]
    assert left_out[TEXTS[-3]] == "it costs 367 steps of source_only, and 0 of the budget are left"


def test_a_setting_goes_to_the_candidates_that_read_it() -> None:
    found = affordable(BASE.replace({"baseline.weight": 0.5, "losses.alignment": "source"}), {})
    assert found.left_out == {}


def test_a_mistake_that_concerns_all_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"unknown model\.backbone"):
        affordable(BASE.replace({"model.backbone": "lenett"}), {})


def test_a_study_says_what_it_leaves_out(images: Path, tmp_path: Path) -> None:
    outcome = auto(images, tmp_path / "store", "--weights", "none", "--budget", "200", "--dry-run")
    assert outcome.status == 0, outcome.err
    assert "left out: prototypes: method 'prototypes' compares features of a pre-trained encoder" in outcome.out
    assert "auto-image_folder: 2 cells, 0 done, 2 to do" in outcome.out


def test_nothing_left_methods_of_ones_own_and_unknown_validators_are_refused(images: Path, tmp_path: Path) -> None:
    arguments = [images, tmp_path, "--weights", "none"]
    refused(auto(*arguments, "--budget", "1"), "no candidate is left: raise --budget")
    refused(auto(*arguments, "--methods", "mcc"), "use scale-ray compare")
    refused(auto(*arguments, "--choose", "circle"), "unknown validator 'circle'")


def test_it_trains_chooses_and_writes_why(images: Path, tmp_path: Path) -> None:
    outcome = auto(images, tmp_path / "store", "--weights", "none", "--budget", "150", "--address", "local")
    assert outcome.status == 0, outcome.err
    report = tmp_path / "store" / "report"
    (choice,) = pd.read_csv(report / "choice.csv").to_dict("records")
    scores = pd.read_csv(report / "scores.csv")
    assert len(scores) == 2  # source_only and mcc cost 50 and 100
    assert choice["choice"] == scores.loc[scores["transfer_score"].idxmax(), "candidate"]
    chosen = Store(tmp_path / "store").read_record(choice["cells"])
    assert chosen is not None
    assert choice["choice"].startswith(chosen.config.method)
    page = (report / "report.html").read_text()
    assert "Which one to use" in page
    assert choice["choice"] in page
