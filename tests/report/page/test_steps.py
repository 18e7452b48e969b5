"""What a report proposes: it reads the plan, and keeps seeds, options and quoting."""

import shlex
from collections.abc import Callable

import pandas as pd
import pytest
from report_stores import config_of

from scale_ray.report.page.answer import Answer, answer
from scale_ray.report.read.completeness import check
from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import ACROSS, COLUMNS
from scale_ray.store import Store

MAKE = Callable[..., Store]
COMMAND = "scale-ray ablate --benchmark digits --store 'runs/my store'"


def steps_of(make_store: MAKE, seeds: list[int], done: int, command: str, **more: object) -> Answer:
    """A study of two combinations with these seeds, of which the first ones are done."""
    planned = [config_of("mnist", "mnistm", losses, "lenet", seed) for losses in ("ce", "ce+ssl") for seed in seeds]
    finished = [(config, 50.0 + config.seed) for config in planned if config.seed in seeds[:done]]
    cells, _ = check(load(make_store(finished, planned=planned).location))
    return answer(cells, commands={"s": command}, location="runs/my store", **more)  # type: ignore[arg-type]


def test_seeds_that_are_planned_are_not_proposed_again(make_store: MAKE) -> None:
    found = steps_of(make_store, [0, 1, 2], 1, f"{COMMAND} --seeds 3")
    assert not any("Train" in step.text for step in found.steps)
    assert found.steps[0].text.startswith("Run the rest of s (4 missing)")


@pytest.mark.parametrize(
    ("seeds", "given", "proposed"),
    [([7, 8], " --seeds 7,8", "7,8,9"), ([0, 1], " --seeds 2", "3"), ([0, 1], " --seeds=2", "3"), ([0], "", "3")],
)
def test_more_seeds_keep_those_that_are_done(make_store: MAKE, seeds: list[int], given: str, proposed: str) -> None:
    found = steps_of(make_store, seeds, len(seeds), COMMAND + given)
    (command,) = [step.command for step in found.steps if step.text.startswith("Train 3 seeds")]
    assert command is not None
    assert shlex.split(command) == [*shlex.split(COMMAND), "--seeds", proposed]


def test_an_interval_of_planned_seeds_is_about_a_point_wide(make_store: MAKE) -> None:
    done = [
        (config_of("mnist", "mnistm", losses, "lenet", seed), 50.0 + (losses != "ce") * (5 + 1.5 * seed))
        for losses in ("ce", "ce+ssl")
        for seed in range(3)
    ]
    cells, _ = check(load(make_store(done).location))
    (step,) = [step for step in answer(cells).steps if step.text.startswith("Train")]
    # Standard deviation 1.5: t(0.975, S - 1) 1.5 / sqrt(S) is 1.05 for 11 seeds and 0.95 for 12 or so.
    assert step.text in {f"Train {seeds} seeds for intervals of about ±1 point on these pairs." for seeds in (11, 12)}


def test_a_proposed_report_has_the_options_of_this_one(make_store: MAKE) -> None:
    agreed = pd.DataFrame(
        [("digits", "lenet", "circular", "scale (ce+ssl)", "1 of 1 pair", ACROSS, "")], columns=COLUMNS
    )
    found = steps_of(
        make_store, [0, 1, 2], 3, COMMAND, agreed=agreed, options=["--study", "s", "--baseline", "ce+ssl (scale bank)"]
    )
    (command,) = [step.command for step in found.steps if step.text.startswith("Choose")]
    words = ["scale-ray", "report", "runs/my store", "--study", "s", "--baseline", "ce+ssl (scale bank)"]
    assert shlex.split(command or "") == [*words, "--choose", "transfer_score"]


def test_a_gain_is_told_without_any_figure(make_store: MAKE) -> None:
    """Of two groups of settings, both have their gain: the answer does not depend on what is drawn."""
    done = [
        (config_of("mnist", "mnistm", losses, backbone, seed), 50.0 + 5 * (losses != "ce"))
        for losses in ("ce", "ce+ssl")
        for backbone in ("lenet", "resnet18")
        for seed in range(3)
    ]
    cells, _ = check(load(make_store(done).location))
    sentences = answer(cells).sentences
    assert len(sentences) == 2
    assert all("5.0 points above the baseline ce." in sentence for sentence in sentences)
