"""The command line as a person uses it, in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from scale_ray import cli

# A trial of a second on the images of `root`.
TINY = [
    *("--benchmark", "image_folder", "--source", "Art", "--target", "Real World", "--device", "cpu"),
    *("--backbone", "lenet", "--weights", "none", "--steps", "4", "--losses", "ce+ssl"),
    *("--set", "data.image_size=32", "--set", "data.resize=32", "--set", "optim.batch_size=4"),
    *("--set", "evaluate_every=2", "--set", "model.hidden_dim=16", "--set", "model.projection_dim=8"),
]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


def command(*arguments: str | Path, program: Callable[[], None] = cli.main) -> Outcome:
    """Run scale-ray in this process, as the installed script does."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["scale-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            program()
    return Outcome(int(exit_.value.code or 0), out.getvalue(), err.getvalue())


def subprocess_command(*arguments: str | Path, **environment: str) -> Outcome:
    """Run scale-ray in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "scale_ray.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_images(root: Path) -> Path:
    """Two domains, one with a space in its name, two classes, eight JPEGs of noise each."""
    numbers = np.random.default_rng(0)
    for domain in ("Art", "Real World"):
        for name in ("cat", "dog"):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(8):
                Image.fromarray(numbers.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{index}.jpg")
    return root


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def refused(outcome: Outcome, *words: str | Path) -> None:
    assert outcome.status == 2
    assert len(outcome.errors) == 1
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert str(word) in outcome.errors[0]


def ablate(images: Path, store: Path, *more: str) -> Outcome:
    settings = [
        argument for argument in TINY if argument.partition("=")[0].partition(".")[0] in ("data", "optim", "model")
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    grid = ["--benchmark", "image_folder", "--root", str(images), "--weights", "none", "--backbone", "lenet"]
    return command("ablate", *grid, "--steps", "50", *options, "--store", store, *more)
