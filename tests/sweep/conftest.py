"""A Ray for tests that start no training."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture
def ray_without_cpus() -> Iterator[None]:
    ray.init(address="local", num_cpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
