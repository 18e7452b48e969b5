"""Each test of data has a cache of its own."""

from pathlib import Path

import pytest

from scale_ray.data.warn import forget_warnings


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is empty at first, and no warning that was given before."""
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    forget_warnings()
