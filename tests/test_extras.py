"""How to install an extra depends on where the package came from."""

import json
from importlib import metadata

import pytest

from scale_ray.extras import how_to_install


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'scale-ray[s3]'"),
        (
            {"url": "file:///home/ann/scale ray", "dir_info": {"editable": True}},
            "pip install -e '/home/ann/scale ray[s3]'",
        ),
        ({"url": "file:///tmp/scale_ray-1.whl"}, "pip install 'scale-ray[s3] @ file:///tmp/scale_ray-1.whl'"),
    ],
)
def test_the_command_names_the_same_place(origin: object, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr("scale_ray.extras.distribution", lambda _: Installed())
    assert how_to_install("s3") == command


def test_without_an_installation_it_is_that_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("scale_ray.extras.distribution", absent)
    assert how_to_install("s3") == "pip install 'scale-ray[s3]'"
