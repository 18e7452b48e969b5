"""CONTRIBUTING's table is true: the files that it names are all that must change, in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]


class Edit(NamedTuple):
    """Put `new` in the place of `old` in a file; a file without `old` is made."""

    file: str
    old: str
    new: str


# What a newcomer adds -> the edits.
ADDITIONS: dict[str, list[Edit]] = {
    "a loss term": [
        Edit(
            "scale_ray/losses/shrink.py",
            "",
            '"""`shrink`: logits of the target stay below a margin."""\n\n'
            "from scale_ray.losses.term import LossTerm, full_precision, given\n\n\n"
            "@full_precision\n"
            "def excess(logits, margin):\n"
            "    return (logits.abs() - margin).clamp(min=0).mean()\n\n\n"
            "def _compute(step, losses):\n"
            "    return excess(given(step.target_logits), losses.shrink_margin)\n\n\n"
            'TERM = LossTerm(_compute, needs=frozenset({"target"}), after_warmup=True, '
            'reads=frozenset({"shrink_margin"}))\n',
        ),
        Edit(
            "scale_ray/losses/__init__.py",
            '    "reg": reg.TERM,\n',
            '    "reg": reg.TERM,\n    "shrink": shrink.TERM,\n',
        ),
        Edit(
            "scale_ray/losses/__init__.py",
            "from scale_ray.losses import ce, confusion, dist, im, reg, ssl\n",
            "from scale_ray.losses import ce, confusion, dist, im, reg, shrink, ssl\n",
        ),
    ],
    "a setting of a loss term": [
        Edit(
            "scale_ray/config/losses.py",
            '    reg_mean: Literal["batch", "image"] = "batch"\n',
            '    reg_mean: Literal["batch", "image"] = "batch"\n'
            "    shrink_margin: Annotated[float, Introduced(0.3)] = Field(0.3, ge=0)\n",
        ),
    ],
    "a backbone": [
        Edit(
            "scale_ray/models/backbones.py",
            '    "lenet": Backbone(_lenet, 96),\n',
            '    "lenet": Backbone(_lenet, 96),\n    "small": Backbone(_lenet, 96),\n',
        )
    ],
    "a CLIP": [
        Edit(
            "scale_ray/models/clip.py",
            '    "clip_tiny": ClipBackbone(\n',
            '    "clip_small": ClipBackbone(\n        config={\n            "embed_dim": 16,\n'
            '            "quick_gelu": True,\n'
            '            "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},\n'
            '            "text_cfg": {"width": 16, "heads": 2, "layers": 1},\n        }\n    ),\n'
            '    "clip_tiny": ClipBackbone(\n',
        )
    ],
    "a data set": [
        Edit(
            "scale_ray/data/benchmarks.py",
            '    "image_folder": _image_folder(),\n',
            '    "image_folder": _image_folder(),\n'
            '    "mine": Benchmark(title="Mine", domains=("plain", "inverted"), classes=("checks", "columns", "rows"), '
            'images={}, aliases={}, pairs=(("plain", "inverted"),), defaults={}, source="made for this test"),\n',
        )
    ],
    "a method": [
        Edit(
            "scale_ray/methods/halved.py",
            "",
            '"""`halved`: mcc with a factor."""\n\nfrom scale_ray.methods.mcc import Mcc\n\n\n'
            "class Halved(Mcc):\n"
            '    """A share of the confusion."""\n\n'
            '    paper = "none"\n    defaults = "those of mcc"\n'
            '    reads = Mcc.reads | {"halved_factor"}\n\n'
            "    def transfer(self, step, source, target):\n"
            "        return self.config.baseline.halved_factor * super().transfer(step, source, target)\n",
        ),
        Edit("scale_ray/methods/__init__.py", '    "mcc": Mcc,\n', '    "mcc": Mcc,\n    "halved": Halved,\n'),
        Edit(
            "scale_ray/methods/__init__.py",
            "from scale_ray.methods.mcc import Mcc\n",
            "from scale_ray.methods.halved import Halved\nfrom scale_ray.methods.mcc import Mcc\n",
        ),
    ],
    "a setting of a method": [
        Edit(
            "scale_ray/config/losses.py",
            "    entropy_conditioning: bool = Field(False",
            "    halved_factor: Annotated[float, Introduced(0.5)] = Field(0.5, ge=0)\n"
            "    entropy_conditioning: bool = Field(False",
        ),
    ],
    "what a method's paper sets otherwise than this package": [
        Edit(
            "scale_ray/data/usual.py",
            "USUAL: dict[str, dict[str, Any]] = {\n",
            'USUAL: dict[str, dict[str, Any]] = {\n    "halved": {"baseline.halved_factor": 0.25},\n',
        )
    ],
    "a variant of a method that is a row of its own": [
        Edit(
            "scale_ray/config/trial.py",
            "VARIANTS: dict[str, Variant] = {\n",
            'VARIANTS: dict[str, Variant] = {\n    "losses.consistency": Variant("ssl", {"mse": " mse"}),\n',
        )
    ],
    "a strong view": [
        Edit(
            "scale_ray/data/views.py",
            "STRONG_VIEWS: Registry[StrongView] = Registry(\n    {",
            "def dimmed(images, views, generator, workers=ALONE):\n    return images / 2\n\n\n"
            'STRONG_VIEWS: Registry[StrongView] = Registry(\n    {"dimmed": dimmed, ',
        )
    ],
    "a learning-rate schedule": [
        Edit(
            "scale_ray/training/schedules.py",
            'SCHEDULES: dict[str, Callable[[int, int], float]] = {"inverse"',
            "def _halved(step, steps):\n    return 0.5\n\n\n"
            'SCHEDULES: dict[str, Callable[[int, int], float]] = {"halved": _halved, "inverse"',
        ),
        Edit("scale_ray/config/parts.py", 'schedule: Literal["inverse",', 'schedule: Literal["halved", "inverse",'),
    ],
    "a validator": [
        Edit(
            "scale_ray/training/validators.py",
            "VALIDATORS: dict[str, Validator] = {\n",
            "def spread(evidence):\n    return evidence.target.logits.std().item()\n\n\n"
            'VALIDATORS: dict[str, Validator] = {\n    "spread": spread,\n',
        ),
        Edit("scale_ray/records.py", '    "source_val", "entropy",', '    "spread", "source_val", "entropy",'),
    ],
    "a set validator": [
        Edit(
            "scale_ray/report/selection/set_validators.py",
            'SET_VALIDATORS: dict[str, SetValidator] = {"ensv": ensv}',
            "def surest(probabilities, labels):\n    return probabilities.max(axis=2).mean(axis=1)\n\n\n"
            'SET_VALIDATORS: dict[str, SetValidator] = {"ensv": ensv, "surest": surest}',
        ),
        Edit("scale_ray/records.py", 'SET_VALIDATOR_NAMES = ("ensv",)', 'SET_VALIDATOR_NAMES = ("ensv", "surest")'),
    ],
    "a sampler": [
        Edit(
            "scale_ray/tuning/optuna_study.py",
            '    "random": lambda seed',
            '    "again": lambda seed: RandomSampler(seed=seed + 1),\n    "random": lambda seed',
        )
    ],
    "a stopping rule": [
        Edit("scale_ray/tuning/early_stop.py", '    "asha": _asha,\n', '    "asha": _asha,\n    "early": _median,\n')
    ],
    "a table of effects": [
        Edit(
            "scale_ray/report/effects/tables.py",
            "TABLES = [\n",
            "def _spans(measured):\n"
            '    cells = measured.cells.groupby("backbone", as_index=False)["accuracy"]\n'
            "    spans = cells.agg(lambda each: each.max() - each.min())\n"
            '    return spans.rename(columns={"accuracy": "points_of_cells"})\n'
            "\n\nTABLES = [\n"
            '    EffectTable(name="spans", title="How far cells are apart", explanation="Points.", function=_spans, '
            'in_paper=[_BACKBONE, Column("points", points, ("points_of_cells",))]),\n',
        )
    ],
    "a figure": [
        Edit(
            "scale_ray/report/figures/drawings.py",
            "KINDS: list[Callable[[Material], Iterator[Drawing]]] = [\n",
            "def _counted(material):\n"
            "    for benchmark, _, _, scope, part in _by_backbone(material.cells):\n"
            "        figure = Figure()\n"
            '        figure.text(0, 0, f"{len(part)} cells")\n'
            '        yield Drawing(file_name("counted", scope), "Counted", benchmark, scope, figure)\n\n\n'
            "KINDS: list[Callable[[Material], Iterator[Drawing]]] = [\n    _counted,\n",
        )
    ],
    "a tracker": [
        Edit(
            "scale_ray/track/lines.py",
            "",
            '"""A line for each run that has ended."""\n\n'
            "from pathlib import Path\n\n\n"
            "class Lines:\n"
            "    def __init__(self, target):\n        self._file = Path(target)\n\n"
            "    def marks(self, study):\n"
            "        lines = self._file.read_text().splitlines() if self._file.exists() else []\n"
            "        return dict(line.split() for line in lines)\n\n"
            "    def begin(self, run):\n        pass\n\n"
            "    def add(self, run, step, metrics):\n        pass\n\n"
            "    def leave(self, run, reason):\n        pass\n\n"
            "    def end(self, run, outcome):\n"
            '        with self._file.open("a") as file:\n'
            '            file.write(f"{run.cell} {outcome.mark}\\n")\n\n'
            "    def show_report(self, study, files, mark):\n        pass\n\n"
            "    def close(self):\n        pass\n",
        ),
        Edit(
            "scale_ray/track/trackers.py",
            '        "trackio": Kind(',
            '        "lines": Kind(Lines, "lines=FILE", "name another file"),\n        "trackio": Kind(',
        ),
        Edit(
            "scale_ray/track/trackers.py",
            "from scale_ray.track.mlflow import Mlflow\n",
            "from scale_ray.track.lines import Lines\nfrom scale_ray.track.mlflow import Mlflow\n",
        ),
    ],
    "a table format": [
        Edit(
            "scale_ray/report/tables/formats.py",
            '    "csv": comma_separated,\n',
            '    "csv": comma_separated,\n    "txt": lambda stacks: f"tables: {len(stacks)}\\n",\n',
        )
    ],
}

NO_FILE = "a grid axis"  # tests/cli/test_own_study.py has it by `axes` and by --axis
MOST_FILES = 3


def rows() -> dict[str, str]:
    """What a newcomer adds -> where, from CONTRIBUTING's table."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    table = text[text.index("| what | where |") : text.index("The tests run one conformity suite")]
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", table, flags=re.MULTILINE)[1:])


def files_of(where: str) -> set[str]:
    """The files that a row names; `<name>` stands for any."""
    return set(re.findall(r"scale_ray/[\w/<>]+\.py", where))


def test_every_row_is_tried() -> None:
    assert rows().keys() == {*ADDITIONS, NO_FILE}


@pytest.mark.parametrize("what", ADDITIONS)
def test_a_row_names_the_files_that_change(what: str) -> None:
    named = {re.sub("<[a-z]+>", "[a-z]+", file) for file in files_of(rows()[what])}
    changed = {edit.file for edit in ADDITIONS[what]}
    assert all(any(re.fullmatch(pattern, file) for pattern in named) for file in changed), changed
    assert all(any(re.fullmatch(pattern, file) for file in changed) for pattern in named), named


def test_a_loss_term_with_its_own_setting_is_three_files() -> None:
    changed = {edit.file for what in ("a loss term", "a setting of a loss term") for edit in ADDITIONS[what]}
    assert len(changed) == MOST_FILES


@pytest.mark.slow
def test_the_additions_work_in_a_copy_of_the_package(tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "scale_ray", tmp_path / "scale_ray", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    for edits in ADDITIONS.values():
        for edit in edits:
            path = tmp_path / edit.file
            before = path.read_text() if edit.old else ""
            assert before.count(edit.old) == 1 or not edit.old, f"{edit.file}: {edit.old!r}"
            path.write_text(before.replace(edit.old, edit.new) if edit.old else edit.new)
    check = Path(__file__).parent / "contributing_check.py"
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(check), str(tiny_root), str(tmp_path / "store"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
