"""One trial: the same record twice, the same record after an interruption, and no way to the target's labels."""

import dataclasses
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import open_data
from safetensors.torch import load_file

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.data.batches import Batches
from scale_ray.data.decoded import Domain
from scale_ray.models import BACKBONES, Network
from scale_ray.records import LAST_POINT_VALIDATORS
from scale_ray.store import Store, StoreError
from scale_ray.training import checkpoint
from scale_ray.training.checkpoint import CheckpointError, from_bytes, to_bytes
from scale_ray.training.failures import TrainingDiverged, describe_failure, explained
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import check_trial, resolve
from scale_ray.training.stages import stage_tree
from scale_ray.training.trial import Training, run_stage, run_trial
from scale_ray.training.validators import VALIDATORS

CPU = torch.device("cpu")


class Interrupted(KeyboardInterrupt):
    """A person's Ctrl-C, at a step of our choice."""


def interrupt_at(step: int) -> Progress:
    def on_step(done: int) -> None:
        if done == step:
            raise Interrupted

    return Progress(on_step=on_step)


def trial_id(config: TrialConfig, root: Path) -> str:
    return resolve(config, root).id


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "source_only", "losses.terms": "ce"},
        {},
        {"data.class_balance": "both", "losses.statistics_window": "ema", "model.batch_norm": "joint"},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"data.class_balance": "off", "losses.covariance": "full", "losses.statistics_window": "epoch"},
                {"model.backbone": "mobilenet_v2", "data.image_size": 32, "data.resize": 32},
            )
        ),
        {"optim.optimiser": "adam", "optim.learning_rate": 0.01},
    ],
    ids=str,
)
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, changes: dict
) -> None:
    config = tiny_config.replace(changes)
    execution = Execution(root=tiny_root, checkpoint_every=3, keep_model=True)
    whole, broken = Store(tmp_path / "whole", create=True), Store(tmp_path / "broken", create=True)
    expected = run_trial(config, execution, whole)

    # Between the checkpoints after steps 3 and 6, then between those after 6 and 9: twice work is lost and done again.
    for step in (5, 8):
        with pytest.raises(Interrupted):
            run_trial(config, execution, broken, interrupt_at(step))
    steps_of_last_session: list[int] = []
    resumed = run_trial(config, execution, broken, Progress(on_step=steps_of_last_session.append))

    assert steps_of_last_session == list(range(7, config.optim.steps + 1))
    assert resumed.result == expected.result
    assert broken.read_checkpoint(expected.id) is None
    models = [load_file(store.model_location(expected.id)) for store in (whole, broken)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_record_is_the_same_on_disk_but_for_provenance(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    texts = []
    for name in ("one", "two"):
        store = Store(tmp_path / name, create=True)
        record = run_trial(tiny_config, Execution(root=tiny_root), store)
        document = json.loads(Path(store.record_location(record.id)).read_text())
        assert document.pop("provenance")["wall_seconds"] > 0
        assert document["result"]["validators"] == document["result"]["curve"][-1]["validators"]
        texts.append(json.dumps(document))
    assert texts[0] == texts[1]


def test_permuted_target_labels_change_nothing_but_reported_accuracy(tiny_config: TrialConfig, tiny_root: Path) -> None:
    config = tiny_config.replace({"data.class_balance": "both"})
    source, targets = open_data(config, ["inverted"], tiny_root)
    target = targets["inverted"]
    permuted = dataclasses.replace(target, labels=np.random.default_rng(0).permutation(target.labels))
    runs = []
    for domain in (target, permuted):
        training = Training(config, source, {"inverted": domain}, CPU)
        runs.append(([point.on("inverted") for point in training.run().points], training.method.state_dict()))
    (true_curve, state), (false_curve, same) = runs

    assert all(torch.equal(a, b) for a, b in zip(state.values(), same.values(), strict=True))
    accuracies = {"target_accuracy", "teacher_accuracy", "kept_accuracy"}
    for true_point, false_point in zip(true_curve, false_curve, strict=True):
        assert true_point.model_dump(exclude=accuracies) == false_point.model_dump(exclude=accuracies)
        unscored = {} if true_point is true_curve[-1] else LAST_POINT_VALIDATORS
        assert true_point.validators.keys() == VALIDATORS.keys() - unscored
    assert true_curve[-1].target_accuracy != false_curve[-1].target_accuracy


def test_batches_are_given_no_target_labels(tiny_config: TrialConfig, tiny_root: Path) -> None:
    """By structure: nothing that the loop's batches hold is or contains the target's labels."""
    source, targets = open_data(tiny_config, ["inverted"], tiny_root)
    marked = dataclasses.replace(targets["inverted"], labels=targets["inverted"].labels[::-1].copy())
    held = []
    original = Batches.__init__

    def spy(self: Batches, *arguments: object) -> None:
        original(self, *arguments)
        held.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__init__", spy)
        Training(tiny_config, source, {"inverted": marked}, CPU).run()
    arrays = [value for part in (held[0]._source, held[0]._target) for value in vars(part).values()]
    assert len(arrays) == 4
    assert not any(np.array_equal(array, marked.labels) for array in arrays)


def test_a_stored_model_predicts_without_projection_head(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    record = run_trial(tiny_config, Execution(root=tiny_root, keep_model=True), store)
    state = load_file(store.model_location(record.id))
    assert not any(name.startswith("projector.") for name in state)
    network = Network(BACKBONES["lenet"].build(), BACKBONES["lenet"].feature_dim, 3, tiny_config.model)
    network.load_for_prediction(state)
    assert network.eval().predict(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


def test_stored_predictions_are_those_that_the_record_counts_in_the_images_order(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    """The same record with and without them, and the trial is done only where they are stored."""
    store, plain = Store(tmp_path / "store", create=True), Store(tmp_path / "plain", create=True)
    without = run_trial(tiny_config, Execution(root=tiny_root), plain)
    keeping = Execution(root=tiny_root, keep_predictions=True)
    record = run_trial(tiny_config, keeping, store)
    assert record.result == without.result
    found = store.read_predictions(record)
    assert found is not None
    _, targets = open_data(tiny_config, ["inverted"], tiny_root)
    labels = targets["inverted"].labels
    assert 100 * np.mean(found.labels == labels) == pytest.approx(record.result.target_accuracy)
    confusion = np.zeros((3, 3), dtype=int)
    np.add.at(confusion, (labels, found.labels), 1)
    assert confusion.tolist() == record.result.confusion
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(len(labels)), abs=2e-3)

    assert not plain.has_beside(record.id, keeping.beside)
    again = run_trial(tiny_config, keeping, plain)
    assert again.result == without.result
    assert np.array_equal(plain.read_predictions(again).probabilities, found.probabilities)


def test_a_training_of_several_targets_leaves_the_predictions_of_each(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    config = tiny_config.replace({"method": "source_only", "losses.terms": "ce"})
    cells = [resolve(config.replace({"data.target": target}), tiny_root) for target in ("inverted", "dark")]
    (stage,) = stage_tree(cells)
    store = Store(tmp_path, create=True)
    for record in run_stage(stage, Execution(root=tiny_root, keep_predictions=True), store):
        assert store.read_predictions(record) is not None


def test_a_diverging_trial_leaves_a_record_with_its_error(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    config = tiny_config.replace({"optim.learning_rate": 1e20})
    with pytest.raises(TrainingDiverged, match=r"not finite.*lower optim.learning_rate"):
        run_trial(config, Execution(root=tiny_root), store)
    record = store.read_record(trial_id(config, tiny_root))
    assert record is not None
    assert (record.status, record.result) == ("failed", None)
    assert record.failure is not None
    assert record.failure.kind == "TrainingDiverged"
    assert "_point" in record.failure.traceback


class Poison:
    """Unpickled, it creates a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def damages(state: bytes, poisoned: Path) -> dict[str, bytes]:
    """What can become of a state."""
    half = len(state) // 2
    without_digest = state[state.index(b"\n") + 1 :]
    return {
        "emptied": b"",
        "cut": state[:half],
        "cut by a byte": state[:-1],
        "longer": state + b"\0",
        "a bit of a tensor": state[:half] + bytes([state[half] ^ 1]) + state[half + 1 :],
        "a bit of its digest": state[:30] + bytes([state[30] ^ 1]) + state[31:],
        "of an earlier version": without_digest,
        "another training's": to_bytes(from_bytes(state, KEY, "here", CPU), "another"),
        "a pickle": pickle.dumps(Poison(poisoned)),
        "a pickle by torch": torch_bytes(Poison(poisoned)),
        "a pickle with a digest": to_bytes({"step": Poison(poisoned)}, KEY),
    }


def torch_bytes(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


KEY = "of this training"


def test_where_steps_take_long_the_clock_says_when_a_checkpoint_is_due(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = tiny_config.replace({"losses.terms": "ce"}), Store(tmp_path, create=True)
    execution = Execution(root=tiny_root, checkpoint_every=10_000)
    with pytest.raises(Interrupted):
        run_trial(config, execution, store, interrupt_at(3))
    assert store.checkpoint_keys() == []  # a minute has not passed
    monkeypatch.setattr(checkpoint, "_OLD_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 0)
    with pytest.raises(Interrupted):
        run_trial(config, execution, store, interrupt_at(3))
    (key,) = store.checkpoint_keys()
    content = store.read_checkpoint(key)
    assert content is not None
    assert from_bytes(content, key, "", CPU)["step"] == 3
    several = checkpoint.StoreCheckpoints(store, key, 10_000, by_clock=False)  # each worker has a clock of its own
    assert not several.due(4)
    assert checkpoint.StoreCheckpoints(store, key, 10_000).due(4)


def test_a_damaged_checkpoint_is_named_and_dropped_and_the_training_starts_anew(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execution = Execution(root=tiny_root, checkpoint_every=3)
    expected = run_trial(tiny_config, execution, Store(tmp_path / "whole", create=True))
    store = Store(tmp_path / "broken", create=True)
    with pytest.raises(Interrupted):
        run_trial(tiny_config, execution, store, interrupt_at(8))
    state = store.read_checkpoint(expected.id)
    assert state is not None
    poisoned = tmp_path / "poisoned"
    own = to_bytes(from_bytes(state, expected.id, "here", CPU), KEY)
    for name, content in damages(own, poisoned).items():
        if name == "a pickle with a digest":
            content = to_bytes({"step": Poison(poisoned)}, expected.id)
        store.write_checkpoint(expected.id, content)
        caplog.clear()
        steps: list[int] = []
        resumed = run_trial(tiny_config, execution, store, Progress(on_step=steps.append))
        assert steps[0] == 1, name
        assert resumed.result == expected.result, name
        assert f"{store.checkpoint_location(expected.id)}: not " in caplog.text
        assert "it is deleted, and the training starts anew" in caplog.text
        assert store.read_checkpoint(expected.id) is None
        Path(store.record_location(expected.id)).unlink()
    assert not poisoned.exists()
    store.write_checkpoint(expected.id, state)  # whole, it is gone on from
    steps = []
    assert run_trial(tiny_config, execution, store, Progress(on_step=steps.append)).result == expected.result
    assert steps[0] == 7


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_of_a_state_is_read(data: st.DataObject) -> None:
    state = to_bytes({"step": 3, "method": {"weight": torch.arange(6.0)}, "points": [(1, 2.5)]}, KEY)
    place = data.draw(st.integers(0, len(state) - 1))
    bit = data.draw(st.integers(0, 7))
    broken = state[:place] + bytes([state[place] ^ (1 << bit)]) + state[place + 1 :]
    with pytest.raises(CheckpointError, match=r"^here: not the state that was written for this training$"):
        from_bytes(broken, KEY, "here", CPU)
    found = from_bytes(state, KEY, "here", CPU)
    assert torch.equal(found["method"].pop("weight"), torch.arange(6.0))
    assert found == {"step": 3, "method": {}, "points": [(1, 2.5)]}


def test_a_checkpoint_that_cannot_be_written_stops_nothing(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk: some checkpoints are lost, the training is not."""
    execution = Execution(root=tiny_root, checkpoint_every=3)
    expected = run_trial(tiny_config, execution, Store(tmp_path / "whole", create=True))
    store = Store(tmp_path / "full", create=True)
    write, written = store.files.write, []

    def full_until_step_6(name: str, content: bytes) -> None:
        if name.startswith("checkpoints/"):
            written.append(name)
            if len(written) < 2:
                raise StoreError(f"{store.location}/{name}: cannot be written (No space left on device): check")
        write(name, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.files, "write", full_until_step_6)
        with pytest.raises(Interrupted):
            run_trial(tiny_config, execution, store, interrupt_at(8))
    assert "no checkpoint after step 3, the training goes on: " in caplog.text
    assert "No space left on device" in caplog.text
    steps: list[int] = []
    assert run_trial(tiny_config, execution, store, Progress(on_step=steps.append)).result == expected.result
    assert steps[0] == 7


def test_a_record_that_cannot_be_written_is_an_error(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, create=True)

    def full(name: str, content: bytes) -> None:
        raise StoreError(f"{name}: cannot be written (No space left on device): check")

    monkeypatch.setattr(store.files, "write", full)
    with pytest.raises(StoreError, match=r"^records/.+No space left"):
        run_trial(tiny_config, Execution(root=tiny_root, checkpoint_every=3), store)


def test_a_config_that_names_nothing_leaves_no_record(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    with pytest.raises(ConfigError, match=r"unknown model.backbone 'resnet5'.*did you mean 'resnet50'"):
        run_trial(tiny_config.replace({"model.backbone": "resnet5"}), Execution(root=tiny_root), store)
    assert list(store.records()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.benchmark": "office_hme"}, "unknown benchmark 'office_hme'.*'office_home'"),
        ({"data.benchmark": "digits", "data.source": "mnsit", "data.target": "mnistm"}, "'mnsit'.*'mnist'"),
        ({"model.backbone": "resnet"}, "unknown model.backbone 'resnet'"),
        ({"method": "scal"}, "unknown method 'scal'.*'scale'"),
        ({"losses.terms": "ce+sll"}, "unknown loss term 'sll'.*'ssl'"),
        ({"views.strong": "colour"}, "unknown views.strong 'colour'.*'colour_affine'"),
        ({"model.head": "linear"}, "model.head is 'linear', and 'scale' adapts layers .* set it to 'mlp'"),
        ({"model.weights": "imagenet"}, "'lenet' has no ImageNet weights"),
        ({"model.weights": "/no/such.pth"}, "no file '/no/such.pth'"),
    ],
    ids=str,
)
def test_names_are_checked_before_any_compute(tiny_config: TrialConfig, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trial(tiny_config.replace(changes))


def test_domains_are_spelt_one_way(tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"data.benchmark": "office_home", "data.source": "real", "data.target": "Art"})
    assert check_trial(config).data.source == "Real_World"


def test_identity_follows_the_images(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    """Another folder with the same images is the same trial; another label of one image is another trial."""
    copy = Path(shutil.copytree(tiny_root, tmp_path / "copy"))
    assert trial_id(tiny_config, copy) == trial_id(tiny_config, tiny_root)
    moved = Path(shutil.copytree(tiny_root, tmp_path / "moved"))
    (moved / "inverted" / "rows" / "00.png").rename(moved / "inverted" / "columns" / "moved.png")
    assert trial_id(tiny_config, moved) != trial_id(tiny_config, tiny_root)


def test_skipped_images_are_counted_in_the_record(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_root, tmp_path / "root"))
    damaged = root / "plain" / "rows" / "00.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{damaged}.*skip"):
        run_trial(tiny_config, Execution(root=root), None)
    record = run_trial(tiny_config.replace({"data.corrupt": "skip"}), Execution(root=root), None)
    assert record.result is not None
    assert record.result.skipped == {"plain": ["rows/00.png"]}


def test_device_that_is_not_there(tiny_config: TrialConfig, tiny_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda:99' cannot be used"):
        run_trial(tiny_config, Execution(root=tiny_root, device="cuda:99"), None)


def test_domain_has_what_the_split_needs(tiny_config: TrialConfig, tiny_root: Path) -> None:
    source, targets = open_data(tiny_config, ["inverted"], tiny_root)
    assert isinstance(source, Domain)
    assert source.classes == targets["inverted"].classes == ("checks", "columns", "rows")


def test_a_trial_that_the_store_answers_is_not_trained_again(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    first = run_trial(tiny_config, Execution(root=tiny_root), store)
    steps: list[int] = []
    assert run_trial(tiny_config, Execution(root=tiny_root), store, Progress(on_step=steps.append)) == first
    assert steps == []


def test_images_that_are_opened_are_signs_of_life(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a trial which hangs while it opens them is ended, and one that decodes for hours is not."""
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    alive: list[str] = []
    progress = Progress(on_step=lambda step: alive.append("step"), on_life=lambda: alive.append("life"))
    run_trial(tiny_config, Execution(root=tiny_root), None, progress)
    images = len(list((tiny_root / "plain").rglob("*.png"))) + len(list((tiny_root / "inverted").rglob("*.png")))
    assert alive.index("step") > images > 0


def test_a_failed_record_shows_no_password_of_a_url() -> None:
    def fail() -> None:
        try:
            raise OSError("no answer from postgresql://me:correct-horse@host/db")
        except OSError as error:
            raise ValueError("https://me:correct-horse@a/b and\nhttps://me:correct-horse@c/d") from error

    with pytest.raises(ValueError, match="me") as raised:
        fail()
    found = describe_failure(raised.value)
    lost = explained("TrialLost", str(raised.value), found.traceback)
    assert found.message == lost.message == "https://me:***@a/b and\nhttps://me:***@c/d"
    for traceback in (found.traceback, lost.traceback):
        assert "postgresql://me:***@host/db" in traceback
        # The source lines of this test hold the text too, and are starred as well.
        assert "correct-horse" not in traceback
