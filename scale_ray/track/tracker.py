"""What a tracker can do: a program in which people look at runs, such as MLflow or TensorBoard.

A tracker is told what a study's store holds, and owns nothing: the store decides what is done. Whatever a tracker
lacks can be sent again from the records.
"""

from collections.abc import Mapping
from typing import Protocol

from scale_ray.errors import UserError
from scale_ray.track.content import Outcome, Run

# Stands for a study's report where a cell's id stands for its run.
REPORT = "report"


class TrackError(UserError):
    """A tracker cannot be used as asked; the message names it and the remedy."""


class Tracker(Protocol):
    """Shows each cell of a study as one run. Its methods are called from one thread.

    A run's identity comes from its cell's id: whoever sends a run again adds to the one that is there, and a point that
    is there already is not added twice. Every method may raise whatever the tracker's own package raises.
    """

    def marks(self, study: str) -> Mapping[str, str]:
        """The runs of a study that are complete: cell id -> the `mark` of the outcome that they show.

        The study's report is among them, under `REPORT`.
        """

    def begin(self, run: Run) -> None:
        """The cell's training begins, or goes on. Points that the run has stay."""

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """A point of the curve of a run that has begun."""

    def leave(self, run: Run, reason: str) -> None:
        """The training of a run that has begun ended without a record, as `interrupted` or `stopped`."""

    def end(self, run: Run, outcome: Outcome) -> None:
        """The cell has a record: afterwards the run shows all of it, whatever it has shown before."""

    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None:
        """Show the files of a study's report: file name -> content."""

    def close(self) -> None:
        """Wait until all has arrived that was sent, and free what the tracker holds."""
