"""Zero-shot accuracy depends on the target alone: shown on the table of a comparison of all 12 pairs of digits."""

from itertools import permutations

import pytest
from grids import comparison
from tiny_clip import train_on_digits

from scale_ray.config import Execution, TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.report import grids, load
from scale_ray.store import Store
from scale_ray.sweep.plan import plan_study
from scale_ray.training.trial import run_stage

pytestmark = pytest.mark.slow  # twelve trainings on digits

DIGITS = BENCHMARKS["digits"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The whole comparison, run stage by stage in this process."""
    folder = tmp_path_factory.mktemp("zero_shot")
    train_on_digits(folder / "tiny.pth")
    changes = {"data.benchmark": "digits", "data.source": "mnist", "data.target": "mnistm", **DIGITS.defaults}
    on_clip = {"losses.terms": "ce", "model.backbone": "clip_tiny", "model.weights": str(folder / "tiny.pth")}
    base = TrialConfig().replace(changes | on_clip)
    study = comparison(base, list(permutations(DIGITS.domains, 2)), [{"method": "clip_zero_shot"}])
    made = Store(folder / "store", create=True)
    plan = plan_study(study, made, None)
    assert (len(plan.todo), len(plan.stages), plan.steps_to_do) == (12, 4, 0)  # a source's targets at once
    for stage in plan.stages:
        run_stage(stage, Execution(), made)
    made.write_plan(plan.study)
    return made


def test_the_zero_shot_row_has_one_value_for_every_source_of_a_target(store: Store) -> None:
    cells = load(store.location)
    (grid,) = [grid for grid in grids(cells) if (grid.form, grid.metric) == ("pairs_by_method", "target_accuracy")]
    assert (grid.group, grid.rows) == ("clip_tiny, tiny.pth", ["clip_zero_shot"])
    assert len(grid.columns) == 12 + 1  # and their average
    of_target: dict[str, set[float | None]] = {}
    for source, target in permutations(DIGITS.domains, 2):
        of_target.setdefault(target, set()).add(grid.entries["clip_zero_shot", f"{source}>{target}"].mean)
    values = [values.pop() for values in of_target.values() if len(values) == 1]
    assert len(values) == 4, of_target
    assert len(set(values)) == 4  # of another target another: no constant, which would pass above
    assert all(value is not None and value > 15 for value in values)  # chance is 10
    assert grid.entries["clip_zero_shot", "average"].mean == pytest.approx(sum(filter(None, values)) / 4)
    assert cells["steps"].tolist() == [0] * 12
