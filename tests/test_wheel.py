"""The wheel holds all that a user needs, and works outside a checkout."""

import sysconfig
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from wheels import REPOSITORY, WHOLE, build, environment, packages, run

from scale_ray import __version__
from scale_ray.cli.run import EXPERIMENTS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(WHOLE, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; what it depends on comes from this one."""
    folder = tmp_path_factory.mktemp("venv")
    programs = environment(folder, wheel)
    (packages(folder) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # after its own packages
    return programs


def test_it_holds_the_package_the_experiments_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"scale_ray", f"scale_ray-{__version__}.dist-info"}
    assert {f"scale_ray/experiments/{name}.py" for name in EXPERIMENTS} | {"scale_ray/cluster/slurm.sbatch"} <= set(
        names
    )
    ours = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "scale_ray").rglob("*.*") if path.is_file()}
    assert {name for name in ours if "__pycache__" not in name} <= set(names)  # pages, styles, published tables


def test_outside_a_checkout_its_experiments_plan(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "scale-ray", "--version", cwd=tmp_path) == f"scale-ray {__version__}\n"
    where = run(installed / "python", "-c", "import scale_ray; print(scale_ray.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    job = run(installed / "scale-ray", "submit", "--slurm", "--dry-run", "--", "run", "demo", cwd=tmp_path)
    assert f"export PATH={installed}:$PATH" in job
    assert "demo: 8 cells, 0 done, 8 to do" in run(installed / "scale-ray", "run", "demo", "--dry-run", cwd=tmp_path)


@pytest.mark.slow
def test_outside_a_checkout_a_cell_is_trained_and_reported(installed: Path, tmp_path: Path) -> None:
    words = ["run", "demo", "--limit", "1", "--steps", "20", "--local", "--store", "store"]
    printed = run(installed / "scale-ray", *words, cwd=tmp_path)
    assert "1 of 1 done" in printed
    assert (tmp_path / "store" / "report" / "report.html").exists()


def test_versions_agree() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {project["version"], cited["version"]} == {__version__}
    assert cited["license"] == project["license"]
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()
