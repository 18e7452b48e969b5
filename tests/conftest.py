"""What every test shares."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never touch the user's cache; `digits` is drawn once a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALE_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
