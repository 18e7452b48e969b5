"""What a study was planned with and what it then finds: other images or weights never train under the planned id."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from scale_ray.cell import Cell
from scale_ray.config import Execution, TrialConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.identity import identity
from scale_ray.models import WeightsError
from scale_ray.records import Record
from scale_ray.store import Store
from scale_ray.training import features, trial
from scale_ray.training.features import open_inputs
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import forget_inputs, resolve
from scale_ray.training.stages import Stage, alone, stage_tree
from scale_ray.training.trial import leaving_failures, run_stage, run_trial

CHANGED = "has changed since the study was planned: run again"


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Images that a test may change."""
    return Path(shutil.copytree(tiny_root, tmp_path / "root"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture
def execution(root: Path) -> Execution:
    return Execution(root=root, device="cpu")


def swap_classes(root: Path) -> None:
    for one, other in (("rows", "away"), ("columns", "rows"), ("away", "columns")):
        (root / "inverted" / one).rename(root / "inverted" / other)


def add_an_image(root: Path) -> None:
    shutil.copy2(root / "inverted" / "rows" / "00.png", root / "inverted" / "rows" / "99.png")


def write_other_pixels(root: Path) -> None:
    Image.new("RGB", (16, 16), "white").save(root / "inverted" / "rows" / "00.png")


def change_the_source(root: Path) -> None:
    (root / "plain" / "rows" / "00.png").rename(root / "plain" / "columns" / "99.png")


def planned(config: TrialConfig, root: Path, *losses: str) -> list[Cell]:
    forget_inputs()
    return [resolve(config.replace({"losses.terms": terms}), root) for terms in losses]


def train(stage: Stage, execution: Execution, store: Store, progress: Progress | None = None) -> list[Record]:
    """As a Tune trial and a worker of Ray Train do."""
    with leaving_failures(stage, execution, store):
        return run_stage(stage, execution, store, progress)


@pytest.mark.parametrize("change", [swap_classes, add_an_image, write_other_pixels, change_the_source])
@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_domain_that_changes_while_the_first_cell_trains_is_read_as_it_was_planned(
    tiny_config: TrialConfig,
    tiny_root: Path,
    root: Path,
    store: Store,
    execution: Execution,
    tmp_path: Path,
    cache: Path,
    change: Callable[[Path], None],
    shared: bool,
) -> None:
    losses = ("ce", "ce+dist") if shared else ("ce", "ce+ssl")  # the former have one warm-up
    cells = planned(tiny_config, root, *losses)
    stages = stage_tree(cells) if shared else [alone(cell) for cell in cells]
    undisturbed = Store(tmp_path / "undisturbed", create=True)
    for stage in stages:
        train(stage, Execution(root=tiny_root, device="cpu"), undisturbed)
    train(stages[0], execution, store, Progress(on_step=lambda step: change(root) if step == 3 else None))
    for stage in stages[1:]:
        train(stage, execution, store)
    for record, expected in zip(store.records(), undisturbed.records(), strict=True):
        assert record.id == identity(record.config, record.inputs)
        assert (record.id, record.result) == (expected.id, expected.result)
    # A machine that has not decoded them before the change cannot train these cells.
    shutil.rmtree(cache)
    domain = "plain" if change is change_the_source else "inverted"
    with pytest.raises(DataError, match=f"{root}/{domain}: domain '{domain}' {CHANGED}"):
        train(stages[0], execution, store)
    # Run again, as the message says: other cells.
    again = planned(tiny_config, root, *losses)
    assert not {cell.id for cell in again} & {cell.id for cell in cells}
    for stage in map(alone, again):
        (record,) = train(stage, execution, store)
        assert record.id == identity(record.config, record.inputs)


def test_a_trial_alone_sees_what_changes_between_planning_and_opening(
    tiny_config: TrialConfig, root: Path, store: Store, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = trial.open_inputs

    def open_late(*arguments: object) -> object:
        swap_classes(root)
        return opening(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trial, "open_inputs", open_late)
    with pytest.raises(DataError, match=CHANGED):
        run_trial(tiny_config, execution, store)
    (record,) = store.records()
    assert record.status == "failed"
    assert record.failure is not None
    assert CHANGED in record.failure.message


def test_images_that_are_only_touched_or_copied_back_have_not_changed(
    tiny_config: TrialConfig, root: Path, store: Store, execution: Execution, tmp_path: Path
) -> None:
    (cell,) = planned(tiny_config, root, "ce")
    shutil.copytree(root / "inverted", tmp_path / "copy")
    shutil.rmtree(root / "inverted")
    (tmp_path / "copy").rename(root / "inverted")
    (record,) = train(alone(cell), execution, store)
    assert record.status == "done"


def test_digits_that_another_machine_draws_otherwise_are_refused(tiny_config: TrialConfig) -> None:
    cell = resolve(
        tiny_config.replace({"data.benchmark": "digits", "data.source": "optdigits", "data.target": "mnist"}), None
    )
    stage = alone(cell)
    drawn = replace(stage, digests={**stage.digests, "mnist": "0" * 64})
    open_inputs(stage, Execution(device="cpu"), None)
    with pytest.raises(DataError, match=r"this machine draws other images of 'mnist' .* same versions of the packages"):
        open_inputs(drawn, Execution(device="cpu"), None)


# Weights and features


@pytest.fixture
def weights(lenet_weights: Path, tmp_path: Path) -> Path:
    """A file of weights that a test may change."""
    return Path(shutil.copy(lenet_weights, tmp_path / "lenet.safetensors"))


def write_other_weights(path: Path) -> None:
    """Of the same size, each a little larger."""
    state = {
        name: value * 2 if value.is_floating_point() else value
        for name, value in safetensors.torch.load_file(path).items()
    }
    with safetensors.safe_open(path, "pt") as before:
        about = before.metadata()
    safetensors.torch.save_file(state, path, about)


@pytest.mark.parametrize("encoder", ["trained", "frozen"])
@pytest.mark.parametrize("when", ["before", "while they are read"])
def test_weights_that_change_are_refused_and_leave_no_features(
    tiny_config: TrialConfig,
    frozen_config: TrialConfig,
    weights: Path,
    store: Store,
    execution: Execution,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    when: str,
) -> None:
    config = (frozen_config if encoder == "frozen" else tiny_config).replace({"model.weights": str(weights)})
    stage = alone(resolve(config, execution.root))
    if when == "before":
        write_other_weights(weights)
    else:
        place, name = (features, "build_encoder") if encoder == "frozen" else (trial, "Training")
        build = getattr(place, name)

        def build_late(*arguments: object) -> object:
            write_other_weights(weights)
            return build(*arguments)

        monkeypatch.setattr(place, name, build_late)
    with pytest.raises(WeightsError, match=f"model.weights: {weights} {CHANGED}"):
        train(stage, execution, store)
    (record,) = store.records()
    assert record.status == "failed"
    assert not list(cache.glob("features/*"))
    assert not store.has_features(features.features_key(stage, "plain")) if encoder == "frozen" else True


def test_weights_of_the_same_size_and_time_have_another_id(tiny_config: TrialConfig, weights: Path, root: Path) -> None:
    config = tiny_config.replace({"model.weights": str(weights)})
    cell, before = resolve(config, root), weights.stat()
    write_other_weights(weights)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    forget_inputs()
    assert resolve(config, root).id != cell.id


def test_weights_that_vanish_are_named(tiny_config: TrialConfig, weights: Path, execution: Execution) -> None:
    stage = alone(resolve(tiny_config.replace({"model.weights": str(weights)}), execution.root))
    weights.unlink()
    with pytest.raises(WeightsError, match=f"model.weights: no file '{weights}'"):
        open_inputs(stage, execution, None)


def test_no_features_are_kept_under_the_key_of_other_images(
    frozen_config: TrialConfig, root: Path, store: Store, execution: Execution, cache: Path
) -> None:
    stage = alone(resolve(frozen_config, root))
    swap_classes(root)
    with pytest.raises(DataError, match=CHANGED):
        train(stage, execution, store)
    assert not list(cache.glob("features/*"))
    forget_inputs()
    now = alone(resolve(frozen_config, root))
    assert features.features_key(now, "inverted") != features.features_key(stage, "inverted")
    assert features.features_key(now, "plain") == features.features_key(stage, "plain")


# Source and target that hold the same images


def copy_renamed(root: Path) -> None:
    """The same images under other names, so that the digests of the domains differ."""
    for number, path in enumerate(sorted((root / "plain").rglob("*.png"))):
        (root / "same" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "same" / path.parent.name / f"image {number}.png")


def copy_half(root: Path) -> None:
    copy_renamed(root)
    for path in sorted((root / "same").rglob("*.png"))[::2]:
        path.unlink()


@pytest.mark.parametrize(
    "make",
    [
        lambda root: (root / "same").symlink_to(root / "plain"),
        lambda root: shutil.copytree(root / "plain", root / "same"),
        copy_renamed,
        copy_half,
    ],
    ids=["link", "copy", "renamed", "half"],
)
def test_a_target_whose_images_are_all_in_the_source_is_refused(
    tiny_config: TrialConfig, root: Path, store: Store, execution: Execution, make: Callable[[Path], object]
) -> None:
    make(root)
    images = len(list((root / "same").glob("*/*.png")))
    with pytest.raises(DataError, match=f"--root {root}: all {images} images of target 'same' are also in source 'pl"):
        run_trial(tiny_config.replace({"data.target": "same"}), execution, store)
    assert list(store.records()) == []


def test_a_target_with_some_images_of_the_source_is_said(
    tiny_config: TrialConfig, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forget_inputs()
    for label in ("rows", "checks"):
        shutil.copy(root / "plain" / label / "00.png", root / "inverted" / label / "copied.png")
    for losses in ("ce", "ce+ssl"):
        resolve(tiny_config.replace({"losses.terms": losses}), root)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["2 of 50 images of target 'inverted' are also in source 'plain'"]


# What a record says of its images


def test_a_record_has_the_number_of_images(tiny_config: TrialConfig, root: Path, execution: Execution) -> None:
    (root / "plain" / "rows" / "00.png").write_bytes(b"no image")
    record = run_trial(tiny_config.replace({"data.corrupt": "skip"}), execution, None)
    assert record.result is not None
    assert record.result.images == {"plain": 47, "inverted": 48}
    assert np.sum(record.result.confusion) == 48
    older = record.model_dump(mode="json")
    del older["result"]["images"]
    assert Record.model_validate(older).result.images == {}  # type: ignore[union-attr]


def test_two_images_a_class_are_enough(tiny_config: TrialConfig, root: Path, execution: Execution) -> None:
    for path in (*root.glob("plain/*/*.png"), *root.glob("inverted/*/*.png")):
        if path.stem not in ("00", "01"):
            path.unlink()
    record = run_trial(tiny_config, execution, None)
    assert record.result is not None
    assert record.result.images == {"plain": 6, "inverted": 6}
    assert [sum(row) for row in record.result.confusion] == [2, 2, 2]


def test_a_failure_that_names_bytes_is_recorded(tiny_config: TrialConfig, root: Path, store: Store) -> None:
    stage = alone(resolve(tiny_config, root))
    with pytest.raises(OSError, match="caf"), leaving_failures(stage, Execution(root=root), store):
        raise OSError("caf\udce9: no such file")
    (record,) = store.records()
    assert record.failure is not None
    assert record.failure.message == "caf\\udce9: no such file"


@pytest.mark.parametrize("what", ["image", "class", "root"])
def test_names_that_no_record_can_hold_are_refused_before_training(
    tiny_config: TrialConfig, root: Path, store: Store, execution: Execution, what: str
) -> None:
    name = "caf\udce9"
    try:
        if what == "image":
            (root / "plain" / "rows" / "00.png").rename(root / "plain" / "rows" / f"{name}.png")
        elif what == "class":
            for domain in ("plain", "inverted"):
                (root / domain / "rows").rename(root / domain / name)
        else:
            execution = execution.model_copy(update={"root": root.rename(root.with_name(name))})
    except OSError:
        pytest.skip("this file system refuses such names")
    with pytest.raises(ValueError, match=r"caf\\xe9.* not UTF-8"):
        run_trial(tiny_config, execution, store)
    assert list(store.records()) == []
