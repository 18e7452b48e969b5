"""How to install an extra depends on where the package came from."""

import json
from email.message import Message
from importlib import metadata
from typing import Any

import pytest

from scale_ray.errors import UserError
from scale_ray.extras import how_to_install, left_out_as_a_message

COMMIT = "0123abc"
OF_GIT = {"url": "https://example.org/sr.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}


def install(name: str | None, extras: list[str], origin: Any, patch: pytest.MonkeyPatch) -> None:
    """Make this distribution the one that is installed."""

    class Installed:
        def __init__(self) -> None:
            self.metadata = Message()
            for extra in extras:
                self.metadata["Provides-Extra"] = extra

        def read_text(self, file: str) -> str | None:
            assert file == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    def found(asked: str) -> Installed:
        if asked != name:
            raise metadata.PackageNotFoundError(asked)
        return Installed()

    patch.setattr("scale_ray.extras.distribution", found)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'scale-ray[s3]'"),
        (
            {"url": "file:///home/ann/scale ray", "dir_info": {"editable": True}},
            "pip install -e '/home/ann/scale ray[s3]'",
        ),
        ({"url": "file:///home/ann/sr", "dir_info": {}}, "pip install 'scale-ray[s3] @ file:///home/ann/sr'"),
        ({"url": "file:///tmp/scale_ray-1.whl"}, "pip install 'scale-ray[s3] @ file:///tmp/scale_ray-1.whl'"),
        (OF_GIT, f"pip install 'scale-ray[s3] @ git+https://example.org/sr.git@{COMMIT}'"),
    ],
)
def test_the_command_names_the_same_place(origin: Any, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install("scale-ray", ["s3", "timm"], origin, monkeypatch)
    assert how_to_install("s3") == command
    assert how_to_install() == command.replace("[s3]", "").replace("'scale-ray'", "scale-ray")


@pytest.mark.parametrize(
    ("origin", "own", "whole"),
    [
        (None, "pip install 'scale-ray-report[s3]'", "pip install 'scale-ray[timm]'"),
        (
            {"url": "file:///home/sr/light", "dir_info": {}},
            "pip install 'scale-ray-report[s3] @ file:///home/sr/light'",
            "pip install 'scale-ray[timm] @ file:///home/sr'",
        ),
        (
            {"url": "https://example.org/scale_ray_report-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'scale-ray-report[s3] @ https://example.org/scale_ray_report-1-py3-none-any.whl'",
            "pip install 'scale-ray[timm] @ https://example.org/scale_ray-1-py3-none-any.whl'",
        ),
        (
            OF_GIT | {"subdirectory": "light"},
            f"pip install 'scale-ray-report[s3] @ git+https://example.org/sr.git@{COMMIT}#subdirectory=light'",
            f"pip install 'scale-ray[timm] @ git+https://example.org/sr.git@{COMMIT}'",
        ),
    ],
)
def test_what_the_light_distribution_lacks_is_of_the_whole_one(
    origin: Any, own: str, whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("scale-ray-report", ["s3", "gcs"], origin, monkeypatch)
    assert how_to_install("s3") == own
    assert how_to_install("timm") == whole
    assert how_to_install() == whole.replace("[timm]", "").replace("'scale-ray'", "scale-ray")


def test_without_an_installation_it_is_that_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    install(None, [], None, monkeypatch)
    assert how_to_install("s3") == "pip install 'scale-ray[s3]'"


def test_only_a_module_that_is_left_out_is_a_message() -> None:
    with pytest.raises(UserError, match="this needs torch, which is not installed: pip "), left_out_as_a_message():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    for name in ("torch._C", "pandas", "mine"):
        with pytest.raises(ModuleNotFoundError), left_out_as_a_message():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
