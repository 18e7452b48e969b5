"""Two targets, of which one is a list with absolute paths, and the result for them."""

import sys
from pathlib import Path

import pytest
from here import Here, copy_images, study_here

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from commands import command

from scale_ray import tracked


@pytest.fixture(scope="session")
def images(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Here:
    return copy_images(tiny_root, tmp_path_factory.mktemp("adapted"))


@pytest.fixture(scope="session")
def result(images: Here, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `scale-ray adapt` leaves."""
    out = tmp_path_factory.mktemp("result") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracked, "run_study", study_here())
        outcome = command("adapt", *images.command, "--out", out)
    assert outcome.status == 0, outcome.err + outcome.out
    return out
