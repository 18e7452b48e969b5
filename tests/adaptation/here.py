"""Adaptations whose trainings run in this process, one after the other, where `scale-ray adapt` asks Ray."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scale_ray.config import Execution
from scale_ray.store import Store
from scale_ray.sweep.plan import Plan
from scale_ray.sweep.run import Outcome
from scale_ray.training.failures import leaving_failures
from scale_ray.training.stages import alone
from scale_ray.training.trial import run_stage

SMALL = {
    "data.image_size": 16,
    "data.resize": 16,
    "data.corrupt": "skip",
    "model.hidden_dim": 8,
    "optim.steps": 6,
    "optim.warmup_steps": 2,
    "optim.batch_size": 4,
    "evaluate_every": 6,
}


@dataclass(frozen=True)
class Here:
    """Images, and what `ask` gets beside them."""

    source: str
    targets: list[str]
    options: dict[str, Any] = field(
        default_factory=lambda: {"backbone": "lenet", "weights": "none", "fine_tune": True, "changes": SMALL}
    )

    @property
    def command(self) -> list[str]:
        """The options of the command that says the same."""
        return [
            *("--source", self.source, "--fine-tune", "--backbone", "lenet", "--weights", "none", "--device", "cpu"),
            *(text for target in self.targets for text in ("--target", target)),
            *(text for path, value in SMALL.items() for text in ("--set", f"{path}={value}")),
        ]


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


def study_here(before: Callable[[], object] = lambda: None) -> Callable[..., Outcome]:
    """What stands for `run_study`; `before` is called once the plan is made."""

    def run(plan: Plan, store: Store, execution: Execution, *_: Any) -> Outcome:
        before()
        store.write_plan(plan.study)
        failed = 0
        for cell in plan.todo:
            try:
                with leaving_failures(alone(cell), execution, store):
                    run_stage(alone(cell), execution, store)
            except Exception:  # noqa: BLE001 - as a study does: the record has it
                failed += 1
        return Outcome(done=len(plan.study.cells) - failed, failed=failed, interrupted=0, progressed=True)

    return run
