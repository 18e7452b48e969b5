"""What people do with studies: submit, pause, resume, cancel, retry, extend, reweigh. Each is a change of the table.

The reconciler sees the change at its next round. Nothing here talks to Ray.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scale_ray.config import ConfigError
from scale_ray.errors import UserError
from scale_ray.service.access import Who
from scale_ray.service.database import OVER, Database, StudyRow, now
from scale_ray.service.planner import PlanAnswer, Planner
from scale_ray.service.settings import ServiceSettings
from scale_ray.service.submission import Submission

audit = logging.getLogger("scale_ray.audit")


class NoSuchStudy(UserError):
    """The service has no study of that name."""


class Conflict(UserError):
    """The study is in a state in which that cannot be done, or its name is taken."""


class Forbidden(UserError):
    """It is somebody else's study."""


class Studies:
    """The studies of a service.

    Args:
        database: their table.
        planner: validates and plans.
        settings: of the service.
    """

    def __init__(self, database: Database, planner: Planner, settings: ServiceSettings):
        self._database, self._planner, self._settings = database, planner, settings
        self._lock = threading.Lock()  # of two submissions with one name, one may leave its plan and errand

    def plan(self, submission: Submission) -> PlanAnswer:
        """What the submission comes to; nothing is kept.

        Raises:
            UserError: it cannot be run as it is.
        """
        return self._planner.plan(submission, self._settings, keep=False)

    def submit(self, submission: Submission, who: Who) -> tuple[StudyRow, PlanAnswer, bool]:
        """Take it into the table. The same submission again changes nothing.

        Returns:
            The study, its plan, and whether it is new.

        Raises:
            UserError: it cannot be run as it is.
            Conflict: there is another study of that name.
        """
        with self._lock:
            return self._submit(submission, who)

    def _submit(self, submission: Submission, who: Who) -> tuple[StudyRow, PlanAnswer, bool]:
        name = submission.study.name
        there = self._database.study(name)
        if there is not None and not (there.owner == who.name and _same(there, submission)):
            remedy = "choose another name, or extend it" if there.owner == who.name else "choose another name"
            raise Conflict(f"study {name!r}: there is another one of that name, by {there.owner}: {remedy}")
        plan = self._planner.plan(submission, self._settings, keep=there is None)
        if there is not None:
            return there, plan, False
        row = StudyRow(
            name=name,
            owner=who.name,
            document=submission.model_dump_json(),
            store=submission.store,
            priority=submission.priority,
            share=submission.share,
            cells=plan.cells,
            done=plan.done,
            created=now(),
            changed=now(),
        )
        with self._database.session() as session:
            session.add(row)
        _tell(who, "submit", name, cells=plan.cells, store=submission.store)
        return row, plan, True

    def pause(self, name: str, who: Who) -> StudyRow:
        """End its job once every training has saved its state, until `resume`."""
        return self._change(name, who, "pause", lambda row: setattr(row, "wanted", "pause"), unless=OVER)

    def cancel(self, name: str, who: Who) -> StudyRow:
        """End its job once every training has saved its state. What is done stays in the store."""
        return self._change(name, who, "cancel", lambda row: setattr(row, "wanted", "cancel"), unless={"done"})

    def resume(self, name: str, who: Who) -> StudyRow:
        """Go on with a study that was paused, cancelled or has failed."""

        def go_on(row: StudyRow) -> None:
            row.wanted, row.fruitless, row.not_before = "run", 0, 0.0
            if row.state in ("paused", *OVER):
                row.state, row.problem = "waiting", ""

        return self._change(name, who, "resume", go_on, unless={"done"})

    def retry(self, name: str, who: Who) -> StudyRow:
        """Train the failed cells of a study again; one that runs starts anew, from its checkpoints."""

        def again(row: StudyRow) -> None:
            if not row.failed:
                raise Conflict(f"study {name!r}: no cell has failed: there is nothing to try again")
            row.wanted, row.fruitless, row.not_before = "run", 0, 0.0
            if row.state in ("paused", *OVER):
                row.state, row.problem = "waiting", ""
            row.restart = bool(row.job)

        return self._change(name, who, "retry", again, unless=())

    def reweigh(self, name: str, who: Who, *, priority: int | None = None, share: float | None = None) -> StudyRow:
        """Change the priority or the share of places of a study."""

        def weigh(row: StudyRow) -> None:
            row.priority = row.priority if priority is None else priority
            row.share = row.share if share is None else share

        return self._change(name, who, "reweigh", weigh, unless=OVER, priority=priority, share=share)

    def extend(self, name: str, who: Who, axes: Mapping[str, Sequence[Any]]) -> tuple[StudyRow, PlanAnswer]:
        """Add values to axes of a study, or a new axis. One that runs starts anew, from its checkpoints.

        Raises:
            UserError: the larger study cannot be run.
            Conflict: it has all of these values already.
        """
        with self._lock:
            return self._extend(name, who, axes)

    def _extend(self, name: str, who: Who, axes: Mapping[str, Sequence[Any]]) -> tuple[StudyRow, PlanAnswer]:
        row = self._of(name, who)
        before = Submission.model_validate_json(row.document)
        grown = {axis: [*before.study.axes.get(axis, ()), *_new(before, axis, values)] for axis, values in axes.items()}
        if all(list(before.study.axes.get(axis, ())) == values for axis, values in grown.items()):
            raise Conflict(f"study {name!r}: it has all of these values already: give others")
        study = before.study.model_copy(update={"axes": {**before.study.axes, **grown}})
        larger = Submission.parse(before.model_copy(update={"study": study}).model_dump())
        plan = self._planner.plan(larger, self._settings, keep=True)

        def grow(row: StudyRow) -> None:
            row.document, row.cells = larger.model_dump_json(), plan.cells
            if row.state in ("done", "failed"):
                row.state, row.problem = "waiting", ""
            row.restart = bool(row.job)

        return self._change(name, who, "extend", grow, unless=(), axes=dict(axes)), plan

    def _change(
        self, name: str, who: Who, action: str, change: Callable[[StudyRow], None], unless: Any, **told: Any
    ) -> StudyRow:
        self._of(name, who)
        with self._database.session() as session:
            row = session.get(StudyRow, name, with_for_update=True)
            if row is None:
                raise _no_such(name)
            if row.state in unless:
                raise Conflict(f"study {name!r}: it is {row.state}: {action} is for one that is not")
            change(row)
            row.changed = now()
        _tell(who, action, name, **told)
        return row

    def _of(self, name: str, who: Who) -> StudyRow:
        """The study, which this person may change."""
        row = self.find(name)
        if row.owner != who.name and not who.may("admin"):
            raise Forbidden(f"study {name!r}: it belongs to {row.owner}: ask its owner, or somebody of scope admin")
        return row

    def find(self, name: str) -> StudyRow:
        """The study of that name.

        Raises:
            NoSuchStudy: there is none.
        """
        row = self._database.study(name)
        if row is None:
            raise _no_such(name)
        return row


def _no_such(name: str) -> NoSuchStudy:
    return NoSuchStudy(f"no study {name[:100]!r} here: the first page, and GET /api/studies, list them")


def _same(row: StudyRow, submission: Submission) -> bool:
    """Whether a submission asks for the same as an earlier one, priority and share aside."""
    first = Submission.model_validate_json(row.document)
    weights = {"priority": 0, "share": 1.0}
    return first.model_copy(update=weights) == submission.model_copy(update=weights)


def _new(before: Submission, axis: str, values: Sequence[Any]) -> list[Any]:
    known = list(before.study.axes.get(axis, ()))
    if not isinstance(values, list | tuple):
        raise ConfigError(f"axis {axis!r}: give a list of values")
    return [value for value in values if value not in known]


def _tell(who: Who, action: str, study: str, **told: Any) -> None:
    """Write who did what."""
    audit.info(action, extra={"who": who.name, "action": action, "study": study, "told": told or None})
