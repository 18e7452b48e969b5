"""Warnings about data, each given once a run: every stage of a study opens the same domains."""

import logging
from functools import cache

logger = logging.getLogger(__name__)


@cache
def warn_once(message: str) -> None:
    """Log a warning, unless this process has logged it since `forget_warnings`."""
    logger.warning("%s", message)


def forget_warnings() -> None:
    """Give every warning again: a new run begins."""
    warn_once.cache_clear()
