"""The two distributions as wheels, and environments that hold one of them: without a network."""

import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from studies import LIMIT

REPOSITORY = Path(__file__).parents[1]
WHOLE, LIGHT = REPOSITORY, REPOSITORY / "light"  # the folders of their pyproject.toml


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(project: Path, folder: Path) -> Path:
    """The wheel of a distribution, in the folder."""
    before = set(folder.glob("*.whl"))
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=project)
    (built,) = set(folder.glob("*.whl")) - before
    return built


def environment(folder: Path, *wheels: Path) -> Path:
    """The programs of a new environment that has these wheels and nothing that they need."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "pip", "install", "--no-deps", "--no-index", *wheels, cwd=folder)
    return folder / "bin"


def packages(folder: Path) -> Path:
    """Where an environment has what is installed."""
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))


def needs(project: Path) -> list[str]:
    """The lines of a distribution's dependencies."""
    return list(tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"])


def all_needed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """What these lines bring along, by name: of this environment, which has everything."""
    found: dict[str, Distribution] = {}
    todo = [(line, {""}) for line in requirements]
    while todo:
        line, extras = todo.pop()
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        needed = requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in extras)
        if needed and (name not in found or requirement.extras):
            found[name] = distribution(name)
            todo += [(each, requirement.extras | {""}) for each in found[name].requires or []]
    return found


def link(found: Iterable[Distribution], into: Path) -> None:
    """Links to the packages and files of distributions of this environment."""
    for one in found:
        for first in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (into / first).exists():
                (into / first).symlink_to(Path(str(one.locate_file(first))))
