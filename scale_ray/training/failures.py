"""What a training that ends without a result leaves: a failed record for every cell that waited for it.

Needs no torch, so that a process which only watches a training stays small.
"""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from scale_ray.cell import Cell
from scale_ray.config import Execution
from scale_ray.errors import UserError
from scale_ray.records import Failure, Ran, Record, now, provenance
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.urls import redacted


class TrainingHung(RuntimeError):
    """A training made no progress for too long. It is tried again: the cause is outside of it."""


class TrainingDiverged(UserError):
    """A loss or a prediction is no longer a finite number."""


_HERE = Ran()


@contextmanager
def leaving_failures(
    stage: Stage,
    execution: Execution,
    store: Store | None,
    ran: Ran = _HERE,
    concerns: Callable[[Exception], bool] = lambda error: True,
) -> Iterator[None]:
    """Where the block raises what `concerns` the training, leave its record for every cell that waited; raise on."""
    started, began = now(), time.monotonic()
    try:
        yield
    except Exception as error:
        if store is not None and concerns(error):
            leave_failure(error, stage, execution, store, ran, started, time.monotonic() - began)
            if isinstance(error, TrainingDiverged):  # going on would only diverge again
                store.delete_checkpoint(stage.key)
        raise


def leave_failure(
    error: BaseException, stage: Stage, execution: Execution, store: Store, ran: Ran, started: str, seconds: float
) -> None:
    """Write the record of a training that ended with this error, for every cell that waited for it."""
    for cell in stage.waiting:
        store.write_record(failed(cell, execution, describe_failure(error), ran, started=started, wall_seconds=seconds))


def failed(
    cell: Cell,
    execution: Execution,
    failure: Failure,
    ran: Ran,
    *,
    started: str | None = None,
    wall_seconds: float = 0,
) -> Record:
    """The record of a cell whose training ended without a result."""
    facts = provenance(
        started=started or now(),
        wall_seconds=wall_seconds,
        device=execution.device,
        threads=execution.threads,
        **asdict(ran),
    )
    return Record(
        id=cell.id, status="failed", config=cell.config, inputs=cell.inputs, failure=failure, provenance=facts
    )


def describe_failure(error: BaseException) -> Failure:
    """An exception as a record keeps it, without passwords of URLs."""
    return explained(type(error).__name__, str(error), "".join(traceback.format_exception(error)))


def explained(kind: str, message: str, traceback: str) -> Failure:
    """A failure as a record keeps it, without passwords of URLs."""
    return Failure(kind=kind, message=_as_utf_8(redacted(message)), traceback=_as_utf_8(redacted(traceback)))


def _as_utf_8(text: str) -> str:
    r"""With other bytes, such as those of a file's name, written as `\xe9`: no record can hold them."""
    return text.encode("utf-8", "backslashreplace").decode()
