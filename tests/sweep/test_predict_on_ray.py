"""`scale-ray predict --ray`: whole files, the numbers of one process, and nothing lost where processes are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from studies import LIMIT, descendants, wait_until

from scale_ray import UserError, load_model
from scale_ray.bundle.contents import Bundle, write_beside, write_model
from scale_ray.config import TrialConfig
from scale_ray.models import build_encoder
from scale_ray.store.files import Files
from scale_ray.sweep.predict import Sharded, shards_to_do

IMAGES, SHARD = 400, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = TrialConfig().replace(
        {"model.backbone": "lenet", "model.weights": "none", "data.image_size": 32, "data.resize": 32}
    )
    head = torch.nn.Linear(96, 3)
    state = {f"encoder.{name}": value for name, value in build_encoder("lenet", "none").state_dict().items()}
    state |= {f"head.0.{name}": value for name, value in head.state_dict().items()}
    bundle = Bundle("ab" * 32, config, {}, ("ant", "bee", "cat"), state)
    folder = tmp_path_factory.mktemp("model")
    write_beside(bundle, "", folder)
    write_model(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of which cannot be read."""
    folder, numbers = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(IMAGES):
        Image.fromarray(numbers.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{index:04}.png")
    (folder / "0007.png").write_bytes(b"no image")
    return folder


def line(model: Path, photos: Path, out: Path) -> list[str]:
    options = ("--ray", "--address", "local", "--device", "cpu", "--shard", str(SHARD))
    return [sys.executable, "-m", "scale_ray.cli", "predict", str(model), str(photos), *options, "--out", str(out)]


def started(model: Path, photos: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(line(model, photos, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def parts(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def assert_whole(out: Path, model: Path, photos: Path) -> None:
    """Every image has one row, in order, and the numbers of one process."""
    assert [path.name for path in parts(out)] == [f"part-{number:05}.parquet" for number in range(IMAGES // SHARD)]
    frame = pd.concat([pd.read_parquet(path) for path in parts(out)], ignore_index=True)
    expected = load_model(model, device="cpu").predict(photos)
    texts = ["path", "class", "second_class", "problem"]
    assert frame[texts].astype("string").equals(expected[texts])
    for column in ("probability", "second_probability"):
        assert frame[column].tolist() == pytest.approx(expected[column].tolist(), abs=1e-6, nan_ok=True)
    assert list(out.glob(".*")) == []


def workers(driver: int) -> list[int]:
    return [pid for pid, command in descendants(driver) if command.startswith("ray::MapWorker")]


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_a_killed_driver_what_had_no_file(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "worker"
    with started(model, photos, out) as process:
        wait_until(lambda: len(parts(out)) >= 2 and bool(workers(process.pid)), process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        assert len(parts(out)) < IMAGES // SHARD, "the worker had finished before it was killed"
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1, err  # of the unreadable image
    assert f"{IMAGES} images predicted" in err
    assert "1 of them unreadable" in err
    assert_whole(out, model, photos)

    out = tmp_path / "driver"
    with started(model, photos, out) as process:
        wait_until(lambda: len(parts(out)) >= 2, process)
        begun = [pid for pid, command in descendants(process.pid)]
        process.kill()
    deadline = time.monotonic() + LIMIT
    while any(Path(f"/proc/{pid}/exe").exists() for pid in begun):
        assert time.monotonic() < deadline, "a process outlived its driver"
        time.sleep(0.1)
    kept = {path: path.stat().st_mtime_ns for path in parts(out)}
    assert 2 <= len(kept) < IMAGES // SHARD, "the driver had finished before it was killed"
    again = subprocess.run(line(model, photos, out), capture_output=True, text=True, timeout=LIMIT, check=False)
    done, todo = len(kept), IMAGES // SHARD - len(kept)
    assert f"{IMAGES // SHARD} shards, {done} done, {todo} to do" in again.stderr
    assert f"{todo * SHARD} images predicted" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert_whole(out, model, photos)


def work(paths: list[str], size: int = 2) -> Sharded:
    return Sharded(Bundle("ab" * 32, TrialConfig(), {}, ("ant", "bee"), {}), paths, size, ".csv")


def test_shards_without_a_file_are_to_do(location: str) -> None:
    wanted, files = work(["a", "b", "c", "d", "e"]), Files(location)
    assert shards_to_do(wanted, files) == [0, 1, 2]
    assert [list(wanted.images(shard)) for shard in range(len(wanted))] == [["a", "b"], ["c", "d"], ["e"]]
    files.write("part-00001.csv", b"")
    assert shards_to_do(wanted, files) == [0, 2]


def test_a_place_of_another_run_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path / "out")
    shards_to_do(work(["a", "b"]), files)
    with pytest.raises(UserError, match=r"another run \(they differ in sha256_of_paths\)"):
        shards_to_do(work(["a", "c"]), files)
    with pytest.raises(UserError, match=r"another run \(they differ in shard\)"):
        shards_to_do(work(["a", "b"], 1), files)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(mine\.txt\)"):
        shards_to_do(work(["a"]), Files(tmp_path / "full"))
    files.write("predictions.json", b"{")
    with pytest.raises(UserError, match=r"predictions\.json: cannot be read"):
        shards_to_do(work(["a"]), files)
