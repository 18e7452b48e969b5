"""Adaptations whose trainings run in this process, one after the other, where `scale-ray adapt` asks Ray."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from scale_ray.config import Execution, Resources
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


def study_here(before: Callable[[], object] = lambda: None) -> Callable[..., Outcome]:
    """What stands for `run_study`; `before` is called once the plan is made."""

    def run(plan: Plan, store: Store, execution: Execution, resources: Resources, console: Console) -> Outcome:
        before()
        store.write_plan(plan.study)
        failed = 0
        for cell in plan.todo:
            try:
                with leaving_failures(alone(cell), execution, store):
                    run_stage(alone(cell), execution, store)
            except Exception:  # noqa: BLE001 - as a study does: the record has it
                failed += 1
        return Outcome(done=len(plan.study.cells) - failed, failed=failed, interrupted=0)

    return run
