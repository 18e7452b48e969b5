"""SIGUSR2 orders a command that trains on Ray to stop: every training saves its state first, and the command ends.

Batch systems give a notice before they take a job's nodes away; cluster/slurm.sbatch passes it on. Not SIGUSR1, which
Ray Tune takes for itself.
"""

import os
import signal
import threading
from types import FrameType

from scale_ray.cli.console import INTERRUPTED
from scale_ray.cli.interrupt import end_at_once
from scale_ray.store.orders import Orders

# Exit status after such an order, where something was trained: the same command goes on from there. It is the number
# that sysexits.h has for a temporary failure.
RUN_AGAIN = 75


class StopSignal:
    """The signal, as orders to the study or search that runs.

    Attributes:
        progressed: whether this process has saved the state of a training, or has ended one.
    """

    def __init__(self) -> None:
        self.progressed = False
        self._given = self._in_use = False

    def heed(self) -> None:
        """Heed the signal from now on. Before orders are asked for, nothing trains, and the process ends at once."""
        self._in_use = False
        if threading.current_thread() is threading.main_thread():  # only there can a handler be set
            signal.signal(signal.SIGUSR2, self._hear)

    def __call__(self) -> Orders:
        """The orders of this moment."""
        self._in_use = True
        return Orders(stop=self._given)

    @property
    def exit_status(self) -> int:
        """Of a command that ended before all was done."""
        return RUN_AGAIN if self._given and self.progressed else INTERRUPTED

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._given = True
        if not self._in_use:
            os.write(2, b"stopped by SIGUSR2 before a training began\n")
            end_at_once(self.exit_status)


stop_signal = StopSignal()  # of this process
