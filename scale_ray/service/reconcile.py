"""Brings Ray's jobs into line with the table, again and again: that is start, stop, resume and repair in one.

Each round asks Ray for the job of every study that is not over, and the store for what is done, and then takes the one
step that is due: submit, order, stop, or note the end. A round that is lost changes nothing, and the next one does it.
So a restarted service, a lost head or a new cluster need no procedure of their own.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from scale_ray.costs import duration
from scale_ray.report.read.labels import count
from scale_ray.service.database import OVER, Database, StudyRow
from scale_ray.service.exits import STOPPED, USER_ERROR
from scale_ray.service.jobs import Cluster, Job, JobRefused, Jobs, RayUnreachable
from scale_ray.service.places import Claim, Most, allot
from scale_ray.service.settings import ServiceSettings
from scale_ray.service.submission import Submission
from scale_ray.service.watch import Counts
from scale_ray.store import Store, StoreError
from scale_ray.store.orders import Orders, write_orders

logger = logging.getLogger(__name__)

# Seconds that a study may take to save its trainings' state before its job is ended.
_ENDING_SECONDS = 180.0

# Seconds before the next attempt, after the first fruitless job; doubled after each further one, at most so long.
_BACK_OFF, _LONGEST_BACK_OFF = 5.0, 600.0

_WEEK = 7  # days
_LOG_LINES = 5  # of a job that failed, in the study's problem


class Reconciler:
    """One round after the other, each by `round`.

    Args:
        settings: of the service.
        database: its table.
        jobs: of the cluster.
        counts: how far the study in a row is, by its store; with True, by a look at it now.
        clock: seconds since 1970.

    Attributes:
        problem: why the cluster cannot be asked; empty where it answers.
        cluster: what it had at the last round; None before the first answer.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        database: Database,
        jobs: Jobs,
        counts: Callable[[StudyRow, bool], Counts],
        clock: Callable[[], float],
    ):
        self._settings, self._database, self._jobs = settings, database, jobs
        self._counts, self._clock = counts, clock
        self._last = clock()
        self._ordered: dict[str, Orders] = {}  # study -> the orders that this process wrote last
        self.problem = ""
        self.cluster: Cluster | None = None

    def round(self) -> None:
        """Look at every study that is not over, and do what is due.

        It raises nothing that the next round may overcome: a cluster or store that does not answer is noted.
        """
        rows = [row for row in self._database.studies() if row.state not in OVER and self._has_a_store(row)]
        try:
            self.cluster = self._jobs.cluster()
            found = {row.name: self._jobs.find(row.job) if row.job else Job("gone") for row in rows}
        except RayUnreachable as error:
            if str(error) != self.problem:
                logger.warning("%s", error)
            self.problem = str(error)
            return
        self.problem = ""
        moment = self._clock()
        passed, self._last = min(60.0, moment - self._last), moment
        # What an ended job has left is counted after its end, or records that came at the last moment would be missed.
        counts = {row.name: self._counts(row, bool(row.job) and not found[row.name].alive) for row in rows}
        places = self._places(rows, found, counts)
        for row in rows:
            self._step(row.name, found[row.name], counts[row.name], places[row.name], passed)

    def _has_a_store(self, row: StudyRow) -> bool:
        there = row.store in self._settings.stores
        if not there:
            problem = f"its store {row.store!r} is no longer in the service's settings"
            with self._database.session() as session:
                session.get_one(StudyRow, row.name).problem = problem
        return there

    def _places(
        self, rows: Sequence[StudyRow], found: Mapping[str, Job], counts: Mapping[str, Counts]
    ) -> dict[str, int]:
        """Trainings that every study may run at once."""
        assert self.cluster is not None
        most, claims, moment = {}, [], self._clock()
        for row in rows:
            quota = self._settings.quota_of(row.owner)
            most[row.owner] = Most(quota.places, quota.gpus)
            wanted = row.wanted == "run" and not self._is_spent(row.owner)
            waits = not found[row.name].alive and row.not_before > moment
            bundle = {"places": 1.0} if self._settings.places else self._bundle(row)
            if quota.gpus is not None and self._settings.places:
                bundle["GPU"] = self._bundle(row).get("GPU", 0.0)
            left = counts[row.name].cells - counts[row.name].done
            wants = left if wanted and not waits else 0
            claims.append(Claim(row.name, row.owner, row.priority, row.share, wants, bundle, row.created))
        capacity = {"places": float(self._settings.places), "GPU": math.inf} if self._settings.places else None
        return allot(claims, capacity or self.cluster.total, most)

    def _bundle(self, row: StudyRow) -> dict[str, float]:
        """What one training holds."""
        of_worker, workers = self._needs(row)
        return {name: amount * workers for name, amount in of_worker.items()}

    def _needs(self, row: StudyRow) -> tuple[dict[str, float], int]:
        """What each worker of a training holds, and how many workers there are."""
        assert self.cluster is not None
        run = Submission.model_validate_json(row.document).run
        there = self.cluster.total.get("GPU", 0) >= 1 and run.device != "cpu"
        gpus = float(there) if run.gpus is None else run.gpus
        return {"CPU": float(run.cpus)} | ({"GPU": gpus} if gpus else {}), run.workers

    def _lacks(self, row: StudyRow) -> str:
        """Why no training of the study can have a place here, whatever else runs; empty where one can."""
        assert self.cluster is not None
        quota, (of_worker, workers) = self._settings.quota_of(row.owner), self._needs(row)
        if quota.places == 0 or (quota.gpus is not None and of_worker.get("GPU", 0.0) * workers > quota.gpus):
            return f"the quota of {row.owner} is smaller than one training: ask the service's operator"
        if self._settings.places:  # the cluster may grow
            return ""
        for name, amount in of_worker.items():
            if amount > (most := self.cluster.largest.get(name, 0.0)):
                return f"a worker needs {amount:g} {name}, and the largest node has {most:g}: ask for less in `run`"
            if amount * workers > (total := self.cluster.total.get(name, 0.0)):
                needed = f"{amount * workers:g} {name}"
                return f"a training needs {needed}, and the cluster has {total:g}: ask for fewer workers"
        return ""

    def _is_spent(self, owner: str) -> bool:
        """Whether the owner has used the GPU hours of a week."""
        most = self._settings.quota_of(owner).gpu_hours_a_week
        return most is not None and gpu_hours(self._database.studies(owner=owner), self._clock()) >= most

    def _step(self, name: str, job: Job, counts: Counts, places: int, passed: float) -> None:
        """Do what is due for one study, in one transaction."""
        with self._database.session() as session:
            row = session.get(StudyRow, name, with_for_update=True)
            if row is None or row.state in OVER:
                return
            progressed = counts.done > row.done
            row.done, row.failed = counts.done, counts.failed
            if progressed:
                row.fruitless = 0
            gpus = self._bundle(row).get("GPU", 0.0)
            if job.alive and gpus:
                row.add_gpu_seconds(gpus * min(row.places, counts.cells - counts.done) * passed, self._clock())
            try:
                self._due(row, job, counts, places)
            except (RayUnreachable, JobRefused, StoreError) as error:
                row.problem = str(error)
                logger.warning("%s: %s", name, error)

    def _due(self, row: StudyRow, job: Job, counts: Counts, places: int) -> None:
        ended = {"pause": "paused", "cancel": "cancelled"}
        if not job.alive and row.wanted in ended:
            self._set(row, ended[row.wanted], "")
            row.job, row.places, row.ending_since, row.restart = "", 0, 0.0, False
        elif job.alive and (row.wanted in ended or row.restart or (not places and counts.done < counts.cells)):
            self._end(row)
        elif job.alive:
            self._set(row, "running" if job.state == "running" else "starting", "")
            self._order(row, Orders(places=max(1, places)))  # without a place, it would not see that all is done
            row.places, row.ending_since = places, 0.0
        elif row.job:
            self._note_end(row, job, counts)
        elif counts.done == counts.cells:
            self._set(row, "done", "")
        elif places and row.not_before <= self._clock():
            self._submit(row, places)
        else:
            self._wait(row)

    def _end(self, row: StudyRow) -> None:
        """Let the trainings save their state; end the job where that takes too long."""
        if not row.ending_since:
            row.ending_since = self._clock()
        again = "it starts again in a moment" if row.restart else "another study comes first, or a quota is used up"
        self._set(row, "ending", again if row.wanted == "run" else "")
        self._order(row, Orders(places=0, stop=True))
        row.places = 0
        if self._clock() - row.ending_since > _ENDING_SECONDS:
            self._jobs.stop(row.job)

    def _note_end(self, row: StudyRow, job: Job, counts: Counts) -> None:
        """A job has ended, or is gone: the study is over, or another job goes on."""
        by_order = bool(row.ending_since) or row.restart or job.exit_code == STOPPED
        log = "" if by_order or job.state == "gone" else self._jobs.log(row.job)
        row.job, row.places, row.ending_since, row.restart = "", 0, 0.0, False
        if counts.done == counts.cells:
            self._set(row, "done", "")
        elif by_order:
            return
        elif job.exit_code == USER_ERROR:
            self._set(row, "failed", _errors(log) or job.message)
        elif counts.done + counts.failed == counts.cells and job.state != "gone":
            failed = f"{counts.failed} of {count(counts.cells, 'cell')} failed"
            self._set(row, "failed", f"{failed}: mend the causes, then retry")
        elif row.fruitless >= self._settings.attempts:
            said = _last_words(log) or job.message
            self._set(row, "failed", f"{row.fruitless + 1} jobs in a row ended without a new record: {said}")
        else:
            row.not_before = self._clock() + min(_LONGEST_BACK_OFF, _BACK_OFF * 2**row.fruitless)
            row.fruitless += 1
            row.last_words = "" if job.state == "gone" else _last_words(log) or job.message
            logger.warning("study %s: its job ended without its work done: %s", row.name, row.last_words or "lost")

    def _submit(self, row: StudyRow, places: int) -> None:
        job = f"{row.name}-{row.attempt + 1}"
        self._order(row, Orders(places=places))
        self._jobs.submit(job, self._settings.stores[row.store], row.name)
        self._set(row, "starting", "")
        row.attempt, row.job, row.places = row.attempt + 1, job, places

    def _wait(self, row: StudyRow) -> None:
        row.places = 0
        seconds = row.not_before - self._clock()
        if self._is_spent(row.owner):
            why = "the GPU hours of this week are used up"
        elif seconds > 0:
            said = f"; it said last: {row.last_words}" if row.last_words else ""
            why = f"the last job ended before its work was done: the next one starts in {duration(seconds)}{said}"
        elif lack := self._lacks(row):
            why = lack
        else:
            why = "other studies use the places, or a quota is used up"
        self._set(row, "waiting", why)

    def _order(self, row: StudyRow, orders: Orders) -> None:
        if self._ordered.get(row.name) != orders:
            write_orders(Store(self._settings.stores[row.store], create=True).files, row.name, orders)
            self._ordered[row.name] = orders

    def _set(self, row: StudyRow, state: str, problem: str | None = None) -> None:
        if row.state != state:
            logger.info("study %s: %s", row.name, state)
            row.changed = self._clock()
        row.state = state
        if problem is not None:
            row.problem = problem


def gpu_hours(rows: Sequence[StudyRow], moment: float) -> float:
    """Hours of GPUs that these studies have used within a week."""
    first = int(moment // 86400) - _WEEK + 1
    return sum(used for row in rows for day, used in row.gpu_seconds_by_day.items() if day >= first) / 3600


def _last_words(log: str) -> str:
    return " / ".join(log.strip().splitlines()[-_LOG_LINES:])


def _errors(log: str) -> str:
    """The lines of a driver's log that say what a person has to mend."""
    lines = [line.removeprefix("error: ") for line in log.splitlines() if line.startswith("error: ")]
    return "\n".join(lines)
