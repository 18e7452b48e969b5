"""What the layout promises: tables without torch, experiments that only pick. Import order is import-linter's part."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EXPERIMENTS = sorted(path for path in (REPOSITORY / "experiments").glob("*.py") if path.stem != "__init__")
HEAVY = ("torch", "torchvision", "kornia", "ray", "optuna")


def heavy_modules_after(code: str, folder: Path) -> list[str]:
    """Which heavy packages a fresh process has imported after `code`; run in `folder`, where `code` leaves nothing."""
    code += f"\nimport sys\nprint('HEAVY', *[name for name in {HEAVY} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout.splitlines()[-1].split()[1:]


def command(*arguments: str) -> str:
    return f"""
import sys
from scale_ray.cli import main
sys.argv = ["scale-ray", *{arguments!r}]
try:
    main()
except SystemExit as exit_:
    assert not exit_.code
"""


def test_the_probe_sees_what_is_heavy(tmp_path: Path) -> None:
    assert heavy_modules_after("import optuna", tmp_path) == ["optuna"]


@pytest.mark.parametrize(
    "module",
    ["scale_ray", "scale_ray.config", "scale_ray.study, scale_ray.store, scale_ray.records", "scale_ray.report"],
)
def test_light_modules_import_neither_torch_nor_ray(module: str, tmp_path: Path) -> None:
    assert heavy_modules_after(f"import {module}", tmp_path) == []


def test_the_front_door_is_lazy(tmp_path: Path) -> None:
    code = "import sys, scale_ray, scale_ray.report\n"
    code += (
        "assert not {'pydantic', 'pandas', 'numpy', 'matplotlib', 'typer'} & sys.modules.keys(), sys.modules.keys()\n"
    )
    code += "from scale_ray import Study, TrialConfig, base_config, load, main, pairs\n"
    assert heavy_modules_after(code, tmp_path) == []


def test_light_commands_import_neither_torch_nor_ray(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tiny_root: Path
) -> None:
    other = tmp_path_factory.mktemp("other")
    prepared = f"""
from pathlib import Path
from scale_ray.config import TrialConfig
from scale_ray.cell import Cell
from scale_ray.store import Store, StudyPlan
cell = Cell(id="f" * 64, config=TrialConfig())
Store({str(other)!r}, create=True).write_plan(StudyPlan(name="s", created="2026-03-01T00:00:00+00:00", cells=[cell]))
"""
    light = [["--help"], ["train", "--help"], ["ablate", "--help"], ["--version"], ["data", "list"]]
    light += [
        ["data", "check", "image_folder", "--root", str(tiny_root)],
        ["status", str(other)],
        ["report", str(other), "--figures", "1"],
        ["track", str(other), "--to", f"tensorboard={other / 'events'}"],
    ]
    code = prepared + "\n".join(command(*arguments) for arguments in light)
    assert heavy_modules_after(code, tmp_path) == []
    assert (other / "report" / "report.html").is_file()


def test_experiments_import_without_effects(tmp_path: Path) -> None:
    assert EXPERIMENTS
    imports = "\n".join(f"import experiments.{path.stem}" for path in EXPERIMENTS)
    assert heavy_modules_after(imports, tmp_path) == []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_only_pick(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] not in HEAVY
            assert not name.startswith(
                ("scale_ray.training", "scale_ray.methods", "scale_ray.models", "scale_ray.losses")
            )
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_run_as_scripts(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "--dry-run" in done.stdout
    assert list(tmp_path.iterdir()) == []
