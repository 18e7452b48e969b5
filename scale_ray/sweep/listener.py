"""Who hears what becomes of a study's stages."""

from collections.abc import Mapping
from typing import Any, Protocol

from scale_ray.stage import Stage


class Listener(Protocol):
    """Hears it in the driver's process. The study waits for every call, so each returns at once and raises nothing."""

    def begun(self, stage: Stage) -> None:
        """The stage has been given to Ray, for the first time or again."""

    def reported(self, stage: Stage, result: Mapping[str, Any]) -> None:
        """The stage has reported metrics: see `trainable.reporting`."""

    def ended(self, stage: Stage) -> None:
        """The stage has left its records or its state."""

    def failed(self, stage: Stage, *, again: bool, reason: str = "") -> None:
        """The stage has failed, and every cell that waits for it with it, unless it is tried again."""

    def stopped(self, stage: Stage) -> None:
        """The stage was ended early, and leaves no record."""
