"""Two targets, of which one is a list with absolute paths, and the result for them."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from here import Here, study_here

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from commands import command

from scale_ray.adaptation import run


def copy_images(tiny_root: Path, root: Path) -> Here:
    """`studio` with class folders; `phone`, a folder with an unreadable image; `tab.csv`, a list of absolute paths.

    The names of the targets' images begin with their class.
    """
    for name, domain in (("studio", "plain"), ("phone", "inverted"), ("elsewhere", "dark")):
        (root / name).mkdir(parents=True)
        for path in sorted((tiny_root / domain).rglob("0[0-5].png")):
            folder = root / name / (path.parent.name if name == "studio" else "")
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder / f"{path.parent.name}_{path.name}")
    (root / "phone" / "lost.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    pd.DataFrame({"path": sorted(map(str, (root / "elsewhere").iterdir()))}).to_csv(root / "tab.csv", index=False)
    return Here(str(root / "studio"), [str(root / "phone"), str(root / "tab.csv")])


@pytest.fixture(scope="session")
def images(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Here:
    return copy_images(tiny_root, tmp_path_factory.mktemp("adapted"))


@pytest.fixture(scope="session")
def result(images: Here, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `scale-ray adapt` leaves."""
    out = tmp_path_factory.mktemp("result") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_study", study_here())
        outcome = command("adapt", *images.command, "--out", out)
    assert outcome.status == 0, outcome.err + outcome.out
    return out
