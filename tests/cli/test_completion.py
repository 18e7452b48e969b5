"""What the shell completes, by the protocol of bash's completion script and the program's real entry point."""

import os
import subprocess
import sys

import pytest

from scale_ray import BACKBONES, BENCHMARKS, LOSSES, METHODS
from scale_ray.cli.export import FORMATS
from scale_ray.config import field_paths
from scale_ray.models.clip import CLIP_BACKBONES
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES

# As the script that pip installs.
ENTRY = "import sys; sys.argv[0] = 'scale-ray'; from scale_ray.cli import main; sys.exit(main())"


def completed(line: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """The run that bash starts for a line whose last word is being typed."""
    words = line.split(" ")
    protocol = {"_SCALE_RAY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return subprocess.run(
        [sys.executable, *flags, "-c", ENTRY], capture_output=True, text=True, check=True, env=os.environ | protocol
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("scale-ray data check ", list(BENCHMARKS)),
        ("scale-ray train --method ", list(METHODS)),
        ("scale-ray compare --methods dann,s", [f"dann,{name}" for name in METHODS if name.startswith("s")]),
        ("scale-ray tune --validator ", [*VALIDATOR_NAMES, ORACLE]),
        ("scale-ray report runs/x --choose ", [*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES, ORACLE]),
        ("scale-ray train --backbone ", [*BACKBONES, *CLIP_BACKBONES]),
        ("scale-ray ablate --backbone lenet,resnet1", ["lenet,resnet18", "lenet,resnet101", "lenet,resnet152"]),
        ("scale-ray train --losses ce+", [f"ce+{name}" for name in LOSSES]),
        ("scale-ray ablate --losses ce,ce+ssl+", [f"ce,ce+ssl+{name}" for name in LOSSES]),
        ("scale-ray export --format ", list(FORMATS)),
        ("scale-ray adapt --device c", ["cpu", "cuda"]),
        ("scale-ray train --set ", [f"{path}=" for path in field_paths()]),
        ("scale-ray ablate --axis losses.thresh", ["losses.threshold=", "losses.thresholding="]),
        ("scale-ray tune --space losses.threshold", ["losses.threshold=", "losses.thresholding="]),
        ("scale-ray train --set losses.threshold=0", []),
        ("scale-ray train --backb", ["--backbone"]),
    ],
)
def test_values_are_completed(line: str, expected: list[str]) -> None:
    assert completed(line).stdout.split() == expected


def test_a_completion_imports_nothing_slow() -> None:
    imported = completed("scale-ray compare --methods ", "-X", "importtime").stderr
    modules = {row.rpartition("|")[2].strip().partition(".")[0] for row in imported.splitlines()}
    assert "typer" in modules
    assert modules.isdisjoint({"torch", "torchvision", "ray", "pandas", "optuna", "pyarrow"})
