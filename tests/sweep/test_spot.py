"""The watcher of spot notices against metadata services that answer as the clouds document."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from metadata_service import Metadata, metadata_service
from studies import LIMIT

from scale_ray.sweep import spot


@pytest.fixture
def metadata() -> Iterator[type[Metadata]]:
    with metadata_service() as service:
        yield service


@pytest.mark.parametrize("cloud", spot.CLOUDS)
def test_a_notice_is_heard(cloud: str, metadata: type[Metadata]) -> None:
    assert spot.CLOUDS[cloud]() is None
    metadata.taken_away = True
    seconds = spot.CLOUDS[cloud]()
    assert seconds is not None
    assert 0 <= seconds <= 110


@pytest.mark.parametrize("cloud", spot.CLOUDS)
def test_a_service_that_does_not_answer_is_asked_again(
    cloud: str, metadata: type[Metadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert spot._seconds_left(spot.CLOUDS[cloud]) is None


def test_the_command_drains_the_node(metadata: type[Metadata]) -> None:
    """Ray answers that no such cluster is there: the notice has led to `ray drain-node`."""
    metadata.taken_away = True
    line = [sys.executable, "-m", "scale_ray.sweep.spot", "aws", "--address", "127.0.0.1:1", "--node-id", "f" * 56]
    environment = os.environ | {"RAY_gcs_rpc_server_connect_timeout_s": "1"}
    ended = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment)
    assert "this machine will be taken away in" in ended.stdout
    assert "drain-node" in ended.stderr
    assert ended.returncode != 0
