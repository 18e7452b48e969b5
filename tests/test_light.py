"""The distribution without torch and ray: what works in it, and what its other commands say."""

import ast
import json
import re
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from report_stores import CREATED, cell_of, config_of, record_of
from serving import STUDY, served
from studies import LIMIT
from wheels import LIGHT, REPOSITORY, WHOLE, all_needed, build, environment, link, needs, packages, run

from scale_ray import __version__, cli
from scale_ray.extras import LEFT_OUT
from scale_ray.store import Store, StudyPlan

# What needs the whole distribution: a command, and options that get as far as that. All others work in the light one.
REFUSED = {
    "adapt": "--source a --target b --out out",
    "train": "--source mnist --target mnistm --store out",
    "ablate": "--store out",
    "compare": "--store out",
    "auto": "--store out",
    "tune": "--store out",
    "export": "store --out out",
    "predict": "store images",
    "run": "demo --store out",
    "data get": "digits_standard out",
    "data push": "out --root images",
    "serve": "",
    "token create": "ann",
    "token list": "",
    "token revoke": "f00d",
}
WORKS = {"init", "report", "status", "forget", "fields", "submit", "track"} | {
    f"data {name}" for name in ("list", "check", "prepare", "cache", "clear")
}


A_SHEET = "data check digits --sheet out.html"  # draws the views of a training


def test_every_command_is_one_or_the_other() -> None:
    group = typer.main.get_command(cli.app)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names |= {f"{name} {each}" for each in command.commands} if hasattr(command, "commands") else {name}
    assert names == WORKS ^ REFUSED.keys()


# What it consists of


def test_its_dependencies_are_the_whole_ones_but_what_the_commands_leave_out() -> None:
    assert set(needs(LIGHT)) < set(needs(WHOLE))
    extras = [
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for folder in (LIGHT, WHOLE)
    ]
    assert extras[0].items() <= extras[1].items()


def test_modules_that_it_lacks_are_known_to_the_message() -> None:
    there = all_needed(needs(LIGHT))
    lacking = {canonicalize_name(Requirement(line).name) for line in needs(WHOLE)} - there.keys()
    distributions = {module: {*map(canonicalize_name, names)} for module, names in packages_distributions().items()}
    assert {module for module in _imported() if lacking & distributions.get(module, set())} == LEFT_OUT


def _imported() -> set[str]:
    """Top-level names of all modules that the package imports anywhere."""
    names = set()
    for path in (REPOSITORY / "scale_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    folder = tmp_path_factory.mktemp("dist")
    return {project: build(project, folder) for project in (WHOLE, LIGHT)}


def test_both_wheels_hold_the_same_files_and_the_same_version(wheels: dict[Path, Path]) -> None:
    whole, light = (
        {file.filename: file.CRC for file in ZipFile(wheels[project]).infolist() if ".dist-info/" not in file.filename}
        for project in (WHOLE, LIGHT)
    )
    assert whole == light
    assert wheels[LIGHT].name == f"scale_ray_report-{__version__}-py3-none-any.whl"
    assert f"scale_ray_report-{__version__}.dist-info/licenses/LICENSE" in ZipFile(wheels[LIGHT]).namelist()


# Its commands


@pytest.fixture(scope="module")
def light(wheels: dict[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`scale-ray` of an environment that has the light distribution, what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    programs = environment(folder, wheels[LIGHT])
    link(all_needed(needs(LIGHT)).values(), packages(folder))
    return programs / "scale-ray"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A grid of two approaches, two pairs and three seeds."""
    store = Store(tmp_path / "store", create=True)
    grid = [
        (config_of(source, "mnistm", losses, "lenet", seed), accuracy + 3 * seed)
        for source, higher in (("mnist", 0), ("fonts", 8))
        for losses, accuracy in (("ce", 40.0 + higher), ("ce+ssl", 70.0 + higher))
        for seed in range(3)
    ]
    store.write_plan(StudyPlan(name="try", created=CREATED, cells=[cell_of(config) for config, _ in grid]))
    for config, accuracy in grid:
        store.write_record(record_of(config, accuracy))
    return store.location


def test_it_reports(light: Path, store: str, tmp_path: Path) -> None:
    printed = run(light, "report", store, "--out", "report", "--oracle", "--parquet", "--figures", "1", cwd=tmp_path)
    assert printed.splitlines()[-1] == "report: report/report.html"
    for name in ("report.html", "effects.md", "cells.parquet"):
        assert (tmp_path / "report" / name).is_file()
    assert re.search(r"try +12 +12 +0 +0", run(light, "status", store, cwd=tmp_path))
    (some, *_) = Store(store).record_ids()
    assert "deleted 1 record (1 file)" in run(light, "forget", store, some[:8], "--yes", cwd=tmp_path)
    assert re.search(r"try +12 +11 +0 +1", run(light, "status", store, cwd=tmp_path))


@pytest.mark.slow
def test_it_checks_and_decodes_images(light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))  # so that the digits are drawn
    assert "4 domains" in run(light, "data", "prepare", "digits", cwd=tmp_path)
    assert "0 problems" in run(light, "data", "check", "digits", cwd=tmp_path)


@pytest.mark.slow
def test_it_submits(light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    with served(tmp_path / "service") as service:
        monkeypatch.setenv("SCALE_RAY_TOKEN", service.token())
        printed = run(light, "submit", "study.json", "--server", service.url, cwd=tmp_path)
    assert printed.splitlines()[-1] == f"submitted: {service.url}/studies/try"


def test_it_names_the_extra_of_a_tracker(light: Path, wheels: dict[Path, Path], store: str, tmp_path: Path) -> None:
    words = [light, "track", store, "--to", "tensorboard=events"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 2
    assert f"needs the package tensorboard: pip install 'scale-ray-report[tensorboard] @ {wheels[LIGHT].as_uri()}'" in (
        " ".join(done.stderr.split())
    )


@pytest.mark.slow
def test_it_tracks(wheels: dict[Path, Path], store: str, tmp_path: Path) -> None:
    programs = environment(tmp_path / "made", wheels[LIGHT])
    extras = tomllib.loads((LIGHT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    link(all_needed(needs(LIGHT) + extras["tensorboard"]).values(), packages(tmp_path / "made"))
    printed = run(programs / "scale-ray", "track", store, "--to", "tensorboard=events", cwd=tmp_path)
    assert printed == "tensorboard=events: try: 12 runs sent, 0 there before\n"


@pytest.mark.parametrize("words", ["--help", "init mine.py", "fields", "data list", "data cache", "data clear --yes"])
def test_it_runs(light: Path, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    run(light, *words.split(), cwd=tmp_path)


@pytest.mark.parametrize("command", [*REFUSED, A_SHEET])
def test_it_says_what_the_other_commands_need(
    light: Path, wheels: dict[Path, Path], command: str, tmp_path: Path
) -> None:
    words = [light, *command.split(), *REFUSED.get(command, "").split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 2
    extra = "[serve]" if command.startswith(("serve", "token")) else ""
    (line,) = (each for each in done.stderr.splitlines() if each.startswith("error: "))
    assert "Traceback" not in done.stderr
    assert line.endswith(f": pip install 'scale-ray{extra} @ {wheels[WHOLE].as_uri()}'")
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_ones_own_says_so_too(light: Path, tmp_path: Path) -> None:
    run(light, "init", "mine.py", cwd=tmp_path)
    words = [light.parent / "python", "mine.py"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 2
    assert re.fullmatch(r"error: this needs torch, which is not installed: pip install '.*'\n", done.stderr)


@pytest.mark.slow
def test_beside_the_whole_one_it_changes_nothing(wheels: dict[Path, Path], tmp_path: Path) -> None:
    """The whole one counts where both are, and the same files are there whichever came last."""
    programs = environment(tmp_path / "both", wheels[WHOLE], wheels[LIGHT])
    link(all_needed(needs(LIGHT)).values(), packages(tmp_path / "both"))
    assert run(programs / "scale-ray", "--version", cwd=tmp_path) == f"scale-ray {__version__}\n"
    code = "from scale_ray.extras import how_to_install; print(how_to_install('timm'))"
    printed = run(programs / "python", "-c", code, cwd=tmp_path)
    assert printed == f"pip install 'scale-ray[timm] @ {wheels[WHOLE].as_uri()}'\n"
