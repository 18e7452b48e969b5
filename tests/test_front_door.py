"""`from scale_ray import …`: every name is there, and what trains without Ray gives the records of the command."""

from pathlib import Path

import pytest

import scale_ray
from scale_ray import Execution, Study, TrialConfig, UserError, load, plan, train
from scale_ray.training.trial import run_trial


@pytest.mark.parametrize("name", scale_ray.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(scale_ray, name) is not None
    assert name in dir(scale_ray)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'scale_ray' has no attribute 'studdy'"):
        _ = scale_ray.studdy


def test_plan_train_and_load(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    study = Study("door", tiny_config, {"losses.threshold": [0.7, 0.8]})
    before = plan(study, tmp_path / "store", tiny_root)
    assert (len(before.study.cells), len(before.todo), len(before.stages)) == (2, 2, 2)
    config = study.cells()[0]
    record = train(config, str(tiny_root), tmp_path / "store", execution=Execution(device="cpu"))
    assert record.result is not None
    assert record.result == run_trial(config, Execution(root=tiny_root, device="cpu"), None).result
    after = plan(study, tmp_path / "store", str(tiny_root))
    assert [cell.config for cell in after.todo] == [study.cells()[1]]
    frame = load(tmp_path / "store")
    assert frame["cell"].tolist() == [record.id]
    assert frame["target_accuracy"].tolist() == [record.result.target_accuracy]


def test_without_a_store_nothing_is_kept(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    assert train(tiny_config, tiny_root, execution=Execution(device="cpu")).status == "done"
    assert list(tmp_path.iterdir()) == []


def test_a_users_mistake_is_a_user_error(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown method 'scael'"):
        train(tiny_config.replace({"method": "scael"}), tiny_root)
    with pytest.raises(UserError, match="no folder for domain 'nowhere'"):
        plan(Study("s", tiny_config.replace({"data.source": "nowhere"}), {}), tmp_path / "store", tiny_root)
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "none")
    assert not (tmp_path / "store").exists()
