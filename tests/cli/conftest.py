"""Images and a trained model for the tests of the command line."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TINY, Outcome, command, write_images


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """Images that a test may spoil."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """`scale-ray train` into a store, and that store."""
    store = tmp_path_factory.mktemp("store")
    return command("train", *TINY, "--root", images, "--store", store, "--keep-model"), store
