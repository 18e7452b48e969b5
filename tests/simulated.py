"""A cluster's jobs without a cluster, for the reconciler's rules; test_service_on_ray.py has a real one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scale_ray.service.database import Database, StudyRow
from scale_ray.service.jobs import Cluster, Job, JobRefused, RayUnreachable
from scale_ray.service.reconcile import Reconciler
from scale_ray.service.settings import ServiceSettings, settings_of
from scale_ray.service.submission import Submission
from scale_ray.service.watch import Counts
from scale_ray.store.files import Files
from scale_ray.store.orders import Orders, read_orders


@dataclass
class SimulatedJobs:
    """Jobs that end when a test says so."""

    total: Mapping[str, float] = field(default_factory=lambda: {"CPU": 2.0})
    jobs: dict[str, Job] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    unreachable: bool = False
    refuses: bool = False

    def _answer(self) -> None:
        if self.unreachable:
            raise RayUnreachable("the cluster's head does not answer")

    def cluster(self) -> Cluster:
        self._answer()
        return Cluster(1, self.total, {}, self.total)

    def find(self, job: str) -> Job:
        self._answer()
        return self.jobs.get(job, Job("gone"))

    def submit(self, job: str, store: str, study: str) -> None:
        self._answer()
        if self.refuses:
            raise JobRefused("no agent")
        if job not in self.jobs:
            self.submitted.append(job)
            self.jobs[job] = Job("running")

    def stop(self, job: str) -> None:
        self.stopped.append(job)
        self.end(job, "stopped")

    def log(self, job: str) -> str:
        return self.logs.get(job, "")

    def end(self, job: str, state: str = "failed", exit_code: int | None = 1, log: str = "") -> None:
        self.jobs[job] = Job(state, exit_code, "the job ended")  # type: ignore[arg-type]
        self.logs[job] = log

    def lose_all(self) -> None:
        """The head is lost, and a new one knows nothing."""
        self.jobs.clear()


class Desk:
    """A reconciler with a table, a simulated cluster, and a clock that a test moves."""

    def __init__(self, folder: Path, **values: object):
        self.moment = 1_000_000.0
        given = {"stores": {"default": str(folder / "store")}, "database": f"sqlite:///{folder}/service.db", **values}
        self.settings: ServiceSettings = settings_of(given, "test")
        self.database = Database(self.settings.database)
        self.jobs = SimulatedJobs()
        self.told: dict[str, Counts] = {}
        self.late: dict[str, Counts] = {}
        self.reconciler = self.restarted()

    def restarted(self) -> Reconciler:
        """A new process on the same table."""
        self.reconciler = Reconciler(
            self.settings,
            self.database,
            self.jobs,  # type: ignore[arg-type]
            self._counts,
            lambda: self.moment,
        )
        return self.reconciler

    def _counts(self, row: StudyRow, fresh: bool) -> Counts:
        """With `late`, what a look before a job's end has not seen."""
        seen = self.late if fresh and row.name in self.late else self.told
        return seen.get(row.name, Counts(0, 0, row.cells))

    def add(self, name: str, owner: str = "ann", *, cells: int = 4, **more: object) -> None:
        submission = Submission.parse({"study": {"name": name, "axes": {"seed": list(range(cells))}}, **more})
        self.moment += 1
        row = StudyRow(
            name=name,
            owner=owner,
            document=submission.model_dump_json(),
            store="default",
            priority=submission.priority,
            share=submission.share,
            cells=cells,
            created=self.moment,
            changed=self.moment,
        )
        with self.database.session() as session:
            session.add(row)

    def change(self, name: str, **values: object) -> None:
        with self.database.session() as session:
            row = session.get_one(StudyRow, name)
            for field_name, value in values.items():
                setattr(row, field_name, value)

    def rounds(self, number: int = 1, *, seconds: float = 2.0) -> None:
        for _ in range(number):
            self.moment += seconds
            self.reconciler.round()

    def row(self, name: str) -> StudyRow:
        found = self.database.study(name)
        assert found is not None
        return found

    def orders(self, name: str) -> Orders:
        return read_orders(Files(self.settings.stores["default"]), name)
