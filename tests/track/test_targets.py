"""A tracker that cannot be used is refused in one line, before anything runs."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scale_ray.errors import UserError
from scale_ray.track import TRACKERS, TrackError, check_targets, open_trackers


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("mlfow=http://host", "mlflow"),
        ("mlflow=", "write mlflow=URI"),
        ("tensorboard", "write tensorboard=FOLDER"),
        ("wandb=", "write wandb=[ENTITY/]PROJECT"),
        ("http://host", "tracker"),
    ],
)
def test_what_is_not_written_as_a_tracker(target: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        check_targets([target])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_target_that_is_named_twice_is_one() -> None:
    assert check_targets(["trackio=a", "trackio=b", "trackio=a"]) == ["trackio=a", "trackio=b"]


@pytest.mark.parametrize("name", list(TRACKERS))
def test_without_its_package_the_command_that_installs_it_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Absent:
        def find_spec(self, module: str, *_: object) -> None:
            if module == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # as Python itself does

    for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(TrackError, match=rf"needs the package {name}: pip install .*\[{name}\]"):
        open_trackers([f"{name}={tmp_path}"])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_an_mlflow_server_that_is_away_or_silent(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for place in ("127.0.0.1:1", f"127.0.0.1:{silent_port}"):
        with pytest.raises(TrackError) as refused:
            open_trackers([f"mlflow=http://me:secret@{place}"])
        message = str(refused.value)
        assert message.startswith(f"mlflow=http://me:***@{place}: cannot be used (")
        assert "start the server" in message
        assert "secret" not in message
        assert "\n" not in message


def test_mlflow_alone_is_where_its_own_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackError, match="set MLFLOW_TRACKING_URI"):
        open_trackers(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackError, match="mlflow: cannot be used"):
        open_trackers(["mlflow"])


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackError, match="cannot be written to"):
        open_trackers([f"tensorboard={tmp_path / 'file'}"])
    with pytest.raises(TrackError, match="a folder of this machine"):
        open_trackers(["tensorboard=s3://bucket/events"])


def test_wandb_where_nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()
    with pytest.raises(TrackError, match=r"`wandb login`, or set WANDB_MODE=offline"):
        open_trackers(["wandb=project"])
    wandb.teardown()
    with pytest.raises(TrackError, match=r"write wandb=PROJECT or wandb=ENTITY/PROJECT"):
        open_trackers(["wandb=a/b/c"])


def test_trackio_that_is_set_to_send_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackError, match="reserved"):
        open_trackers(["trackio=registry-x"])
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    with pytest.raises(TrackError, match="TRACKIO_SPACE_ID names another place: unset it"):
        open_trackers(["trackio=project"])
