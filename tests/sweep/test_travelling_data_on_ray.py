"""Images that only the driver sees: nodes of a cluster take them from the store, and records are the same."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from clusters import cluster
from ray.cluster_utils import Cluster
from s3_server import S3Server
from studies import LIMIT, command, results, run, wait_until

from scale_ray.store import Store

pytestmark = pytest.mark.slow

SHORT = ("--set", "optim.steps=20", "--set", "evaluate_every=10")


@pytest.fixture(scope="module")
def undisturbed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("undisturbed")
    finished = run(tiny_root, store, *SHORT)
    assert finished.returncode == 0, finished.stderr
    return results(store)


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Nodes with a cache of their own, which the driver does not use."""
    with monkeypatch.context() as patch:
        patch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache of the nodes"))
        with cluster(1, 1) as made:
            yield made


def test_nodes_fetch_what_they_do_not_see(
    tiny_root: Path, two_nodes: Cluster, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    shutil.copytree(tiny_root, root)
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache of the driver"))
    line = command(root, store, *SHORT, address=two_nodes.address)
    study = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: len(list(store.glob("data/*/domain.json"))) == 2, study)
    root.rename(tmp_path / "away")
    told, _ = study.communicate(timeout=LIMIT)
    assert study.returncode == 0, told
    assert results(store) == undisturbed
    assert len(list((tmp_path / "cache of the nodes" / "decoded").iterdir())) == 2
    assert not (tmp_path / "cache of the driver" / "decoded").exists()


def test_images_at_a_url_are_stored_by_the_nodes(
    tiny_root: Path, two_nodes: Cluster, undisturbed: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    root, store = s3.new_url(), s3.new_url()
    system, path = fsspec.core.url_to_fs(root)
    system.put(f"{tiny_root}/", f"{path}/", recursive=True)
    line = command(tiny_root, store, *SHORT, address=two_nodes.address)
    line[line.index(str(tiny_root))] = root
    study = subprocess.run(
        line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT
    )
    assert study.returncode == 0, study.stdout
    assert "storing plain, images: " in study.stdout
    assert results(store) == undisturbed
    assert len(Store(store).files.folders("data")) == 2
