"""Whole trainings by two processes: what one gives, where BatchNorm sees no parts; else the same on both."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gloo import run_together
from opened import open_data
from quick import slow_but
from tiny_trial import TINY
from torch import Tensor

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.data.batches import LabelledImages
from scale_ray.data.views import evaluation_view
from scale_ray.methods import METHODS
from scale_ray.models import build_encoder
from scale_ray.models.network import batch_norms
from scale_ray.store import Store
from scale_ray.training import evidence
from scale_ray.training.checkpoint import from_bytes, to_bytes
from scale_ray.training.evaluation import Evaluator
from scale_ray.training.loop import Trained
from scale_ray.training.seeding import step_seed
from scale_ray.training.setup import build_method, check_workers
from scale_ray.training.trial import Training, run_trial
from scale_ray.workers import ALONE, Workers

CPU = torch.device("cpu")
HALF = 6  # of the tiny trial's 12 steps, 3 of which are its warm-up

# Rates and thresholds at which frozen BatchNorm learns, and the teacher is sure of some images only.
FROZEN = {"model.batch_norm": "frozen", "optim.learning_rate": 0.01, "losses.threshold": 0.6}
ALIKE: dict[str, dict[str, Any]] = {
    "all terms": FROZEN,
    "bank": {**FROZEN, "losses.contrast": "bank", "losses.bank_size": 20},
    "spatial": {**FROZEN, "model.contrast_level": "spatial", "losses.reg_mean": "image"},
    "balance both": {**FROZEN, "data.class_balance": "both", "losses.statistics_window": "ema"},
    "no balance": {**FROZEN, "data.class_balance": "off", "losses.covariance": "full", "losses.consistency": "mse"},
}
ALIKE["after the warm-up"] = {
    **FROZEN,
    "method": "dann",
    "losses.terms": "ce",
    "baseline.transfer_from": "warm_up",
}
ALIKE |= {
    name: {**FROZEN, "method": name, "losses.terms": "ce"}
    for name, method in METHODS.items()
    if name != "scale" and method.learns
}
ALIKE["dan"]["optim.learning_rate"] = 0.001  # its bandwidth follows features that nothing normalises here
for name in ("sdat", "mic"):
    ALIKE[name]["optim.learning_rate"] = 0.001  # at 0.01 twelve steps magnify last bits a million times
ALIKE["mic"]["views.strong"] = "masked"
for name in ("daprompt", "ad_clip"):
    ALIKE[name] |= {"model.backbone": "clip_tiny", "model.weights": "none"}
APART: dict[str, dict[str, Any]] = {
    "separate": {},
    "joint": {"model.batch_norm": "joint", "data.class_balance": "both"},
}


QUICK = ("all terms", "bank", "spatial", "balance both", "dann", "mcc", "shot")
OF_ALIKE = slow_but(QUICK, ALIKE)


def training(config: TrialConfig, root: Path, *, float64: bool) -> Training:
    """In float64 the order of a sum hardly shows, so that two workers can be held to one's numbers closely."""
    source, targets = open_data(config, [config.data.target], root)
    made = Training(config, source, targets, CPU)
    if float64:
        made.method.double()
        networks = [made.method.student] + ([made.method.teacher.module] if made.method.teacher else [])
        for network in networks:
            network.encoder.register_forward_pre_hook(lambda module, images: (images[0].double(),))
    return made


def accuracies(made: Training, config: TrialConfig, root: Path, workers: Workers) -> dict[str, Any]:
    """On 47 images, which do not split evenly; validators see samples of 20, of source_train one image."""
    _, targets = open_data(config, [config.data.target], root)
    images = {
        name: LabelledImages(domain.images, np.arange(47), domain.labels[:47]) for name, domain in targets.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "SAMPLE_SIZE", 20)
        shown = images[config.data.target]
        one = LabelledImages(shown.images, shown.indices[:1], shown.labels[:1])
        evaluator = Evaluator(images, shown, one, num_classes=3, size=16, device=CPU, workers=workers)
        return asdict(evaluator.measure(made.method.student, made.method.teacher))


def outcome(made: Training, trained: Trained) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in trained.points],
        "state": dict(made.method.state_dict()),
        "resumable": to_bytes(trained.state, "key"),
        "seed": torch.initial_seed(),
    }


def train(
    config: TrialConfig, root: Path, *, float64: bool = True, until: int | None = None, start: bytes = b""
) -> Any:
    made = training(config, root, float64=float64)
    state = from_bytes(start, "key", "here", CPU) if start else None
    measured = outcome(made, made.run(last=until, start=state))
    measured["together"], measured["alone"] = (
        accuracies(made, config, root, workers) for workers in (Workers.current(), ALONE)
    )
    return measured


def train_all(jobs: Sequence[tuple[TrialConfig, dict[str, Any]]], root: Path) -> list[dict[str, Any]]:
    return [train(config, root, **arguments) for config, arguments in jobs]


def run_and_train_all(
    store: Path, jobs: Sequence[tuple[TrialConfig, dict[str, Any]]], root: Path
) -> list[dict[str, Any]]:
    run_trial(jobs[0][0], Execution(root=root), Store(store))
    return train_all(jobs, root)


@pytest.fixture(scope="module")
def tiny(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialConfig:
    """The tiny trial with weights whose BatchNorm has seen images, so that it can be frozen."""
    config = TrialConfig().replace(TINY)
    source, _ = open_data(config, [], tiny_root)
    torch.manual_seed(0)
    encoder = build_encoder("lenet", "none")
    for layer in batch_norms(encoder):
        layer.momentum = None  # the mean over all that was seen
    encoder(evaluation_view(torch.from_numpy(source.images.copy()), size=16))
    path = tmp_path_factory.mktemp("weights") / "lenet.pth"
    torch.save(encoder.state_dict(), path)
    return config.replace({"model.weights": str(path)})


@pytest.fixture(scope="module")
def asked(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """What is trained: of ALIKE, that for which a test was selected, and all that other tests take for granted."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    selected = {item.callspec.params.get("name") for item in here}
    return {name: changes for name, changes in ALIKE.items() if name in selected or name in QUICK} | APART


@pytest.fixture(scope="module")
def one(tiny: TrialConfig, tiny_root: Path, asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What one worker gives."""
    found = {name: train(tiny.replace(changes), tiny_root) for name, changes in asked.items()}
    found["float32"] = train(tiny.replace(FROZEN), tiny_root, float64=False)
    found["half"] = train(tiny.replace(FROZEN), tiny_root, until=HALF)
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"), create=True)


@pytest.fixture(scope="module")
def both(
    tiny: TrialConfig,
    tiny_root: Path,
    asked: dict[str, dict[str, Any]],
    one: dict[str, Any],
    store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[Any]]:
    """What each of two workers gives, in one pair of processes."""
    two = tiny.replace({"parallel.workers": 2})
    jobs: dict[str, tuple[TrialConfig, dict[str, Any]]] = {
        name: (two.replace(changes), {}) for name, changes in asked.items()
    }
    jobs["again"] = (two, {})
    jobs["float32"] = (two.replace(FROZEN), {"float64": False})
    jobs["half"] = (two.replace(FROZEN), {"until": HALF})
    jobs["gone on"] = (two.replace(FROZEN), {"start": one["half"]["resumable"]})
    folder, orders = tmp_path_factory.mktemp("both"), list(jobs.values())
    found = run_together(run_and_train_all, folder, store.location, orders, tiny_root)
    return {name: list(of_workers) for name, of_workers in zip(jobs, zip(*found, strict=True), strict=True)}


def assert_same_accuracies(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Scores, which see more of a prediction than its class, to a relative error; all else exactly."""
    scores = {name: values["validators"] for name, values in (("found", found), ("expected", expected))}
    assert found | {"validators": None} == expected | {"validators": None}
    assert scores["found"].keys() == scores["expected"].keys()
    for domain, wanted in scores["expected"].items():
        # A discriminator fitted to other last bits ends within its solver's tolerance.
        assert scores["found"][domain] == pytest.approx(wanted, rel=max(100 * tolerance, 1e-4), abs=1e-4)


def assert_same_training(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Curve and state, class statistics and teacher included, to a relative error; accuracies exactly."""
    assert len(found["points"]) == len(expected["points"]) == 3
    for point, wanted in zip(found["points"], expected["points"], strict=True):
        for exactly in ("step", "kept_fraction"):
            assert point[exactly] == wanted[exactly]
        assert_same_accuracies(point["accuracies"], wanted["accuracies"], tolerance)
        assert point["losses"] == pytest.approx(wanted["losses"], rel=tolerance)
    assert found["state"].keys() == expected["state"].keys()
    for name, value in expected["state"].items():
        # Relative to the tensor's size: single entries may be zero but for rounding.
        size = value.abs().max().item() if value.numel() else 0.0
        torch.testing.assert_close(found["state"][name], value, rtol=0, atol=tolerance * size, msg=name)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", OF_ALIKE)
def test_with_frozen_batch_norm_two_workers_give_what_one_gives(
    one: dict[str, Any], both: dict[str, list[Any]], name: str
) -> None:
    for found in both[name]:
        assert_same_training(found, one[name], tolerance=1e-12)


@pytest.mark.parametrize("name", [*OF_ALIKE, *APART])
def test_every_image_is_counted_once(both: dict[str, list[Any]], name: str) -> None:
    for found in both[name]:
        assert_same_accuracies(found["together"], found["alone"], tolerance=1e-12)


def test_in_float32_to_its_rounding(one: dict[str, Any], both: dict[str, list[Any]]) -> None:
    for found in both["float32"]:
        assert_same_training(found, one["float32"], tolerance=1e-4)


def test_the_compared_trainings_do_something(one: dict[str, Any], tiny: TrialConfig, tiny_root: Path) -> None:
    points, state = one["all terms"]["points"], one["all terms"]["state"]
    assert points[-1]["losses"].keys() == {"ce", "ssl", "dist", "reg"}
    assert all(value > 0 for value in points[-1]["losses"].values())
    assert 0 < points[0]["kept_fraction"] < 1
    assert len({point["accuracies"]["source_val"] for point in points}) > 1
    assert state["statistics.count"].sum() == tiny.optim.steps * tiny.optim.batch_size
    untrained = training(tiny.replace(FROZEN), tiny_root, float64=True).method.state_dict()
    for name in ("student.encoder.0.0.weight", "student.projector.0.weight", "student.encoder.0.2.weight"):
        assert not torch.allclose(state[name], untrained[name], rtol=1e-3), name


@pytest.mark.parametrize("name", [*OF_ALIKE, *APART, "float32"])
def test_workers_hold_the_same_state_bit_for_bit(both: dict[str, list[Any]], name: str) -> None:
    first, second = both[name]
    assert first["points"] == second["points"]
    assert equal(first["state"], second["state"])


@pytest.mark.parametrize("name", APART)
def test_batch_norm_of_each_workers_part_is_another_training(
    one: dict[str, Any], both: dict[str, list[Any]], name: str
) -> None:
    found = both[name][0]
    assert found["points"] != one[name]["points"]
    moved = {key for key, value in found["state"].items() if not torch.equal(value, one[name]["state"][key])}
    assert "student.encoder.0.2.running_mean" in moved
    assert "teacher.module.encoder.0.2.running_mean" in moved


def test_two_workers_give_the_same_bits_every_time(both: dict[str, list[Any]]) -> None:
    assert both["again"][0]["points"] == both["separate"][0]["points"]
    assert equal(both["again"][0]["state"], both["separate"][0]["state"])


def test_a_training_goes_on_with_another_number_of_workers(
    one: dict[str, Any], both: dict[str, list[Any]], tiny: TrialConfig, tiny_root: Path
) -> None:
    for found in both["gone on"]:
        assert_same_training(found, one["all terms"], tolerance=1e-12)
    back = train(tiny.replace(FROZEN), tiny_root, start=both["half"][0]["resumable"])
    assert_same_training(back, one["all terms"], tolerance=1e-12)


def test_workers_drop_out_differently_and_the_first_as_one_alone(
    one: dict[str, Any], both: dict[str, list[Any]], tiny: TrialConfig
) -> None:
    seeds = [found["seed"] for found in both["separate"]]
    assert seeds[0] == step_seed(tiny.seed, "forward", tiny.optim.steps - 1) == one["separate"]["seed"]
    assert seeds[1] not in (seeds[0], step_seed(tiny.seed, "forward", tiny.optim.steps - 2))


def test_two_workers_leave_one_record_that_says_how_it_ran_and_answers_for_one(
    one: dict[str, Any], both: dict[str, list[Any]], store: Store, tiny: TrialConfig, tiny_root: Path
) -> None:
    (record,) = store.records()
    assert (record.status, record.provenance.workers, record.provenance.backend) == ("done", 2, "gloo")
    assert record.result is not None
    expected = one["float32"]["points"][-1]["accuracies"]
    assert record.result.target_accuracy == expected["target"]["inverted"]
    assert run_trial(tiny.replace(FROZEN), Execution(root=tiny_root), store) == record


# What can be checked without a second process


def test_other_workers_than_the_config_says_are_refused(tiny_config: TrialConfig, tiny_root: Path) -> None:
    config = tiny_config.replace({"parallel.workers": 2})
    source, targets = open_data(config, [config.data.target], tiny_root)
    with pytest.raises(
        ConfigError, match=r"parallel.workers=2, but this process group has 1.*set parallel.workers to 1"
    ):
        Training(config, source, targets, CPU)


SYNCHRONISED = {"parallel.workers": 2, "parallel.sync_batch_norm": True, "model.batch_norm": "joint"}


def test_synchronised_batch_norm_is_refused_on_a_cpu(tiny_config: TrialConfig) -> None:
    config = tiny_config.replace(SYNCHRONISED)
    with pytest.raises(ConfigError, match=r"parallel.sync_batch_norm works on GPUs only.*'cpu'.*'frozen'"):
        check_workers(config, Workers(0, 2), CPU)
    check_workers(config, Workers(0, 2), torch.device("cuda"))
    check_workers(config.replace(FROZEN), Workers(0, 2), CPU)  # there is nothing to synchronise
    check_workers(config.replace({"parallel.workers": 1}), ALONE, CPU)


def test_every_batch_norm_is_synchronised_and_no_name_changes(tiny_config: TrialConfig) -> None:
    def norms(changes: dict[str, Any]) -> tuple[set[type], list[str]]:
        method = build_method(tiny_config.replace(changes), 3, 5, Workers(0, 2))
        layers = (module for module in method.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm))
        return {type(layer) for layer in layers}, list(method.state_dict())

    plain, names = norms({"parallel.workers": 2, "model.batch_norm": "joint"})
    synchronised, same_names = norms(SYNCHRONISED)
    assert plain == {torch.nn.BatchNorm1d, torch.nn.BatchNorm2d}
    assert synchronised == {torch.nn.SyncBatchNorm}
    assert names == same_names
    assert build_method(tiny_config.replace(SYNCHRONISED), 3, 5, Workers(0, 2)).student.running_statistics() == []
    assert norms({**SYNCHRONISED, **FROZEN})[0] == plain
