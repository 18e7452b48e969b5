"""Features of a frozen encoder: what they are, that they are computed once, and what trains on them."""

import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opened import open_data
from studies import LIMIT

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cached import cache_entries
from scale_ray.data.views import evaluation_view
from scale_ray.methods import METHODS
from scale_ray.models import build_encoder
from scale_ray.stage import Stage
from scale_ray.store import Store, StoreError
from scale_ray.training import features as module
from scale_ray.training.features import features_key, open_inputs
from scale_ray.training.resolve import check_trial, resolve
from scale_ray.training.stages import alone
from scale_ray.training.trial import run_trial

TARGETS = ["inverted"]


def stage_of(config: TrialConfig, root: Path | None) -> Stage:
    return alone(resolve(config, root))


@pytest.fixture
def config(frozen_config: TrialConfig) -> TrialConfig:
    return frozen_config


@pytest.fixture
def execution(tiny_root: Path) -> Execution:
    return Execution(root=tiny_root, device="cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the domains whose features were computed."""
    names: list[str] = []
    compute = module._compute

    def counting(config: TrialConfig, domain: object, *rest: object) -> None:
        names.append(domain.name)  # type: ignore[attr-defined]
        compute(config, domain, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_compute", counting)
    return names


def test_they_are_the_encoders_pooled_outputs_of_views_of_each_image(config: TrialConfig, execution: Execution) -> None:
    source, targets = open_inputs(stage_of(config, execution.root), execution, None)
    pixels, _ = open_data(config, TARGETS, execution.root)
    assert source.images.shape == (len(pixels.images), 5, 96)
    assert source.images.dtype == np.float16
    assert np.array_equal(source.labels, pixels.labels)
    assert targets["inverted"].images.shape[1:] == (5, 96)
    encoder = build_encoder("lenet", config.model.weights).eval()
    with torch.inference_mode():
        expected = encoder(evaluation_view(torch.from_numpy(np.array(pixels.images)), size=16)).mean(dim=(2, 3))
    torch.testing.assert_close(torch.tensor(source.images[:, 0]).float(), expected, rtol=1e-3, atol=1e-4)
    weak, strong = source.images[:, 1:3].astype(float), source.images[:, 3:].astype(float)
    assert not np.array_equal(weak[:, 0], weak[:, 1])
    evaluated = source.images[:, :1].astype(float)
    assert np.abs(weak - evaluated).mean() < np.abs(strong - evaluated).mean()


def test_threads_change_no_bit(config: TrialConfig, execution: Execution, cache: Path) -> None:
    found = []
    for threads in (1, 2):
        shutil.rmtree(cache / "features", ignore_errors=True)
        several = execution.model_copy(update={"threads": threads})
        found.append(np.array(open_inputs(stage_of(config, execution.root), several, None)[0].images))
    assert np.array_equal(*found)


def test_they_are_computed_once_for_every_cell_and_machine(
    config: TrialConfig, execution: Execution, store: Store, cache: Path, computed: list[str]
) -> None:
    first, _ = open_inputs(stage_of(config, execution.root), execution, store)
    assert computed == ["plain", "inverted"]
    kept = np.array(first.images)
    open_inputs(
        stage_of(config.replace({"seed": 3, "losses.terms": "ce", "optim.learning_rate": 0.1}), execution.root),
        execution,
        store,
    )
    shutil.rmtree(cache / "features")  # another machine, with the same store
    again, _ = open_inputs(stage_of(config, execution.root), execution, store)
    assert computed == ["plain", "inverted"]
    assert np.array_equal(again.images, kept)


@pytest.mark.parametrize(
    "changes",
    [{"model.frozen_views": 1}, {"views.flip": False}, {"data.image_size": 12}, {"optim.precision": "bf16"}],
    ids=str,
)
def test_what_determines_them_names_them(config: TrialConfig, execution: Execution, changes: dict) -> None:
    changed, usual = stage_of(config.replace(changes), execution.root), stage_of(config, execution.root)
    assert features_key(changed, "plain") != features_key(usual, "plain")
    assert features_key(usual, "plain") != features_key(usual, "inverted")


@pytest.mark.parametrize("version", ["FEATURES_VERSION", "DECODER_VERSION", "RECIPE_VERSION"])
def test_another_version_of_what_makes_them_names_others(
    config: TrialConfig, execution: Execution, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = features_key(stage_of(config, execution.root), "plain")
    monkeypatch.setattr(module, version, 99)
    assert features_key(stage_of(config, execution.root), "plain") != before


def test_a_warm_up_without_target_reads_those_of_its_cell(config: TrialConfig, execution: Execution) -> None:
    cell = config.replace({"losses.terms": "ce+dist", "views.randaugment_magnitude": 5})
    warm_up = METHODS["scale"].warm_up(cell)
    assert warm_up is not None
    assert features_key(stage_of(warm_up, execution.root), "plain") == features_key(
        stage_of(cell, execution.root), "plain"
    )


def test_missing_weights_are_named(config: TrialConfig, execution: Execution) -> None:
    with pytest.raises(ConfigError, match=r"model\.weights: no file '/nowhere/lenet.pth'"):
        open_inputs(stage_of(config.replace({"model.weights": "/nowhere/lenet.pth"}), execution.root), execution, None)


def test_other_weights_of_the_same_name_are_other_features(
    config: TrialConfig, execution: Execution, tmp_path: Path
) -> None:
    keys = []
    for seed in range(2):
        torch.manual_seed(seed)
        path = tmp_path / f"{seed}" / "lenet.pth"
        path.parent.mkdir()
        torch.save(build_encoder("lenet", "none").state_dict(), path)
        keys.append(features_key(stage_of(config.replace({"model.weights": str(path)}), execution.root), "plain"))
    assert keys[0] != keys[1]


def test_damage_is_seen_and_mended(
    config: TrialConfig,
    execution: Execution,
    store: Store,
    cache: Path,
    computed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = np.array(open_inputs(stage_of(config, execution.root), execution, store)[0].images)
    key = features_key(stage_of(config, execution.root), "plain")
    # On this machine, a file cut short and a bit: the store has them whole.
    path = cache / "features" / key / "features.npy"
    content = path.read_bytes()
    for broken in (b"half", content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(broken)
        assert np.array_equal(open_inputs(stage_of(config, execution.root), execution, store)[0].images, kept)
    assert len(computed) == 2
    # In the store: one bit, while the machine has none.
    assert store.folder is not None
    path = store.folder / "features" / f"{key}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(cache / "features")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(open_inputs(stage_of(config, execution.root), execution, store)[0].images, kept)
    assert computed[2:] == ["plain"]
    assert f"{key}.npy is damaged: features are computed anew" in caplog.text


def _open_until(config: TrialConfig, execution: Execution, start: int) -> None:
    """As a command does, in batches of eight images; the one that begins with `start` never ends."""
    from scale_ray.cli.interrupt import heeding_ctrl_c

    forward = module._forward

    def stuck(*arguments: Any) -> np.ndarray:
        if arguments[-1] == start:
            time.sleep(LIMIT)
        return forward(*arguments)

    module._BATCH, module._forward = 8, stuck
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with heeding_ctrl_c():
        open_inputs(stage_of(config, execution.root), execution, None)


@pytest.mark.parametrize("end", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_after_an_end_in_the_middle_they_go_on_where_they_were(
    end: signal.Signals,
    config: TrialConfig,
    execution: Execution,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_BATCH", 8)
    stage = stage_of(config, execution.root)
    undisturbed = np.array(open_inputs(stage, execution, None)[0].images)
    shutil.rmtree(cache / "features")
    process = multiprocessing.get_context("spawn").Process(target=_open_until, args=(config, execution, 32))
    process.start()
    parts = cache / "features" / f".parts-{features_key(stage, 'plain')}"
    deadline = time.monotonic() + LIMIT
    while not (parts / "24").exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, end)
    process.join(LIMIT)
    assert process.exitcode == (130 if end is signal.SIGINT else -signal.SIGKILL)
    damaged = (parts / "16").read_bytes()
    (parts / "16").write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    begun, forward = [], module._forward

    def noting(*arguments: Any) -> np.ndarray:
        begun.append(arguments[-1])
        return forward(*arguments)

    monkeypatch.setattr(module, "_forward", noting)
    capsys.readouterr()
    again = open_inputs(stage, execution, None)[0].images
    assert np.array_equal(again, undisturbed)
    assert begun[:4] == [16, 24, 32, 40]  # of 48 images; then those of the other domain
    assert "features of plain by lenet, images: 16 of 48" in capsys.readouterr().err
    assert not parts.exists()


def test_the_cache_lists_them(config: TrialConfig, execution: Execution) -> None:
    open_inputs(stage_of(config, execution.root), execution, None)
    listed = {entry.about for entry in cache_entries() if entry.kind == "features of a frozen encoder"}
    assert listed == {"image_folder plain, lenet", "image_folder inverted, lenet"}


def test_a_store_that_comes_later_gets_them_and_one_that_fails_loses_none(
    config: TrialConfig, execution: Execution, store: Store, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_features", full)
        with pytest.raises(StoreError, match="no space left"):
            open_inputs(stage_of(config, execution.root), execution, store)
    assert computed == ["plain"]
    open_inputs(stage_of(config, execution.root), execution, store)
    assert computed == ["plain", "inverted"]
    found = store.read_features(features_key(stage_of(config, execution.root), "plain"))
    assert found is not None
    assert hashlib.sha256(found[0]).hexdigest() == found[1]


def test_a_cache_in_which_nothing_can_be_written_is_read_and_named(
    config: TrialConfig, execution: Execution, cache: Path
) -> None:
    kept = np.array(open_inputs(stage_of(config, execution.root), execution, None)[0].images)
    shutil.rmtree(cache / "locks")
    (cache / "locks").write_text("")  # root may write anywhere else
    assert np.array_equal(open_inputs(stage_of(config, execution.root), execution, None)[0].images, kept)
    shutil.rmtree(cache / "features")
    with pytest.raises(DataError, match=r"locks: cannot be written .* name another folder in SCALE_RAY_CACHE"):
        open_inputs(stage_of(config, execution.root), execution, None)
    (cache / "locks").unlink()
    (cache / "locks" / features_key(stage_of(config, execution.root), "plain")).mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be written"):
        open_inputs(stage_of(config, execution.root), execution, None)


def _open(config: TrialConfig, execution: Execution, store: str, log: Path) -> None:
    compute = module._compute

    def counting(*arguments: object) -> None:
        with log.open("a") as file:
            file.write("computed\n")
        compute(*arguments)  # type: ignore[arg-type]

    module._compute = counting  # type: ignore[assignment]
    open_inputs(stage_of(config, execution.root), execution, Store(store))


def test_of_processes_that_start_together_one_computes(
    config: TrialConfig, execution: Execution, store: Store, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    open_data(config, TARGETS, execution.root)
    arguments = (config, execution, store.location, log)
    processes = [context.Process(target=_open, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text().count("computed") == 2  # one a domain


def test_a_trial_learns_and_is_the_same_twice(config: TrialConfig, execution: Execution, tmp_path: Path) -> None:
    longer = config.replace({"optim.steps": 120, "evaluate_every": 120, "optim.learning_rate": 0.02})
    one, two = (run_trial(longer, execution, Store(tmp_path / name, create=True)).result for name in ("one", "two"))
    assert one == two
    assert one is not None
    assert one.source_val_accuracy > 60  # chance is 33
    kept = run_trial(longer, execution, Store(tmp_path / "one"))
    assert kept.config.model.encoder == "frozen"
    assert '"encoder":"frozen"' in kept.to_json().replace(" ", "")


def test_nothing_of_the_encoder_is_trained_or_stored(config: TrialConfig, execution: Execution, store: Store) -> None:
    keeping = execution.model_copy(update={"keep_model": True})
    record = run_trial(config, keeping, store)
    from safetensors.torch import load

    assert store.folder is not None
    names = load((store.folder / "models" / f"{record.id}.safetensors").read_bytes()).keys()
    assert {name.partition(".")[0] for name in names} == {"bottleneck", "classifier"}


def test_a_method_on_clip_refuses_it(clip_config: TrialConfig) -> None:
    config = clip_config.replace({"method": "daprompt", "model.encoder": "frozen"})
    with pytest.raises(ConfigError, match=r"'daprompt' cannot train on stored features.*at 'trained'"):
        check_trial(config)
