"""What waits for another process's work, and what works itself, says so."""

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from scale_ray.data import cache
from scale_ray.data.cache import cache_folder, open_or_build
from scale_ray.data.work import heard, in_threads


def test_every_item_is_a_sign_of_life_within_the_block_alone() -> None:
    signs: list[int] = []
    with heard(lambda: signs.append(1)):
        assert list(in_threads(abs, [-1, 2, -3], "work")) == [1, 2, 3]
    assert list(in_threads(abs, [-1], "work")) == [1]
    assert len(signs) == 3


def test_who_waits_for_another_builder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_LOCK_SECONDS", 0.01)
    folder = cache_folder() / "features" / "key"
    (cache_folder() / "locks").mkdir()
    builder = FileLock(cache_folder() / "locks" / "key", thread_local=False)
    builder.acquire()
    waited = threading.Event()
    signs: list[int] = []

    def sign() -> None:
        signs.append(1)
        if len(signs) == 3:
            folder.mkdir(parents=True)
            (folder / "file").write_text("built by the other")
            builder.release()
            waited.set()

    with heard(sign):
        text = open_or_build(
            folder, lambda path: (path / "file").read_text(), lambda path: pytest.fail("built twice"), one_builds=True
        )
    assert text == "built by the other"
    assert waited.is_set()
