"""How fast a training steps, measured while it runs."""

import time
from collections.abc import Callable

_FIRST_SECONDS = 1.0  # of steps that are measured before the first report


class Pace:
    """Measures the seconds of a step, evaluations included, and reports them early and then now and then.

    The first step of a session is not counted, nor is the last one reported: the last point of the curve follows it.

    Args:
        report: called with the number of steps done and the seconds of a step.
        last: the step that the training ends with.
        every: seconds between two reports; None: after 2, 4, 8, 16 … steps of this session, which several workers of
            one training agree about.
    """

    def __init__(self, report: Callable[[int, float], None], last: int, every: float | None):
        self._report, self._last, self._every = report, last, every
        self._steps, self._began, self._next = 0, 0.0, 0.0
        self.seconds_a_step: float | None = None  # None before the second step has ended

    def on_step(self, step: int) -> None:
        """A step has ended; so many are done."""
        now = time.monotonic()
        self._steps += 1
        if self._steps == 1:
            self._began, self._next = now, now + _FIRST_SECONDS
            return
        self.seconds_a_step = (now - self._began) / (self._steps - 1)
        if step < self._last and self._is_due(now):
            self._report(step, self.seconds_a_step)

    def _is_due(self, now: float) -> bool:
        if self._every is None:
            return self._steps & (self._steps - 1) == 0
        if now < self._next:
            return False
        self._next = now + self._every
        return True
