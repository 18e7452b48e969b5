"""What the seeds of studies with `until` have decided, and which cells such studies can be compared by."""

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from scale_ray.config import TrialConfig
from scale_ray.report.effects.sequential import Decision, decision_note, decisions
from scale_ray.store import PlanFile


def decided(cells: pd.DataFrame, plans: Sequence[PlanFile]) -> tuple[pd.DataFrame, list[str]]:
    """The decisions of all studies with `until`, one a row, and what they mean.

    Args:
        cells: as `load` returns them.
        plans: of the studies.
    """
    done = cells[(cells["status"] == "done") & cells["target_accuracy"].notna()]
    accuracies = dict(zip(done["cell"], done["target_accuracy"], strict=True))
    rows, notes = [], []
    for plan in plans:
        if plan.until is None or plan.until.first is None:
            continue
        configs = _configs(plan)
        benchmark = next(iter(configs.values())).data.benchmark
        found = decisions(configs, accuracies, plan.until)
        rows += [{"benchmark": benchmark, "study": plan.name, **each._asdict()} for each in found]
        notes.append(f"study {plan.name}: {decision_note(plan.until)}")
    columns = ["benchmark", "study", *(name for name in Decision._fields if name != "open")]
    return pd.DataFrame(rows, columns=columns), notes if rows else []


def with_equal_seeds(cells: pd.DataFrame, plans: Sequence[PlanFile]) -> pd.DataFrame:
    """The cells without those of seeds that only some approaches of a study with `until` were given.

    What was decided early has the fewest seeds: a choice among those with all seeds would leave out the best.
    """
    unequal = set[str]()
    for plan in plans:
        if plan.until is None:
            continue
        configs = _configs(plan)
        seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
        for config in configs.values():
            seeds[config.model.label, config.approach].add(config.seed)
        common = set.intersection(*seeds.values())
        unequal |= {cell for cell, config in configs.items() if config.seed not in common}
    return cells[~cells["cell"].isin(unequal)] if unequal else cells


def _configs(plan: PlanFile) -> dict[str, TrialConfig]:
    """Id -> config of a plan's cells."""
    return {cell.id: cell.config for cell in plan.plan().cells}
