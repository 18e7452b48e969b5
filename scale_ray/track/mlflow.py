"""MLflow: an experiment for each study, a run for each cell, found again by its tag `scale_ray.cell`."""

import math
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from scale_ray.track.content import Outcome, Run, in_folder
from scale_ray.track.tracker import REPORT, TrackError

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun

T = TypeVar("T")

_CELL, _MARK, _STATUS = "scale_ray.cell", "scale_ray.mark", "scale_ray.status"
_NOTE = "mlflow.note.content"  # the description on a run's page

_PAUSE = 1.0  # seconds, at most, before a run is made again

# What MLflow's server takes in one request, and in one value.
_METRICS, _PARAMS, _TAGS = 900, 100, 100
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000

_UNFIT = re.compile(r"[^\w\-./ :]")  # of the name of a metric, a parameter or a tag

# MLflow's own values let a call to a server that does not answer wait for a quarter of an hour, and print an address at
# the end of every run.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass
class _Open:
    """A run that the server has: its id there, and (metric, step) -> value of what it shows."""

    id: str
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    params: set[str] = field(default_factory=set)


class Mlflow:
    """Runs on an MLflow server, or in a database that this machine can reach.

    Args:
        target: a tracking URI; where it is empty, MLFLOW_TRACKING_URI.

    Raises:
        TrackError: nothing answers there.
        ImportError: mlflow is not installed.
    """

    def __init__(self, target: str):
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)

        from mlflow import MlflowClient

        uri = target or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            raise TrackError("mlflow: which server? write mlflow=URI, or set MLFLOW_TRACKING_URI")
        self._client = MlflowClient(uri)
        self._client.search_experiments(max_results=1)  # does anybody answer?
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, _Open] = {}  # by the key of a run

    def marks(self, study: str) -> dict[str, str]:
        tags = [run.data.tags for run in self._search(study, f"tags.`{_MARK}` LIKE '_%'")]
        return {each[_CELL]: each[_MARK] for each in tags}

    def begin(self, run: Run) -> None:
        opened = self._opened(run, time.time())
        self._client.update_run(opened.id, status="RUNNING", name=run.name)
        self._describe(opened, run, {_MARK: "", _STATUS: "running"})

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._send(self._opened(run, time.time()), {step: metrics}, {step: time.time()})

    def leave(self, run: Run, reason: str) -> None:
        opened = self._opened(run, time.time())
        self._client.set_tag(opened.id, _STATUS, reason)
        self._client.set_terminated(opened.id, "KILLED")

    def end(self, run: Run, outcome: Outcome) -> None:
        opened = self._opened(run, outcome.started)
        if _contradicts(opened, outcome.points):  # trained again, to other numbers; MLflow takes no point back
            self._client.delete_run(opened.id)
            opened = self._create(run, outcome.started)
        failed = outcome.failure is not None
        facts = {**outcome.facts, _STATUS: "failed" if failed else "done", _NOTE: outcome.failure or ""}
        self._describe(opened, run, facts)
        self._client.update_run(opened.id, name=run.name)
        self._send(opened, outcome.points, {step: outcome.time_of(step) for step in outcome.points})
        self._attach(opened.id, outcome.files())
        self._client.set_tag(opened.id, _MARK, outcome.mark)
        end = outcome.started + outcome.seconds
        self._client.set_terminated(opened.id, "FAILED" if failed else "FINISHED", int(1000 * end))
        del self._runs[run.key]

    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None:
        found = self._find(study, REPORT)
        if found is None:
            name = f"report of {study}"
            found = self._client.create_run(self._experiment(study), tags={_CELL: REPORT}, run_name=name)
        self._attach(found.info.run_id, files)
        self._client.set_tag(found.info.run_id, _MARK, mark)
        self._client.set_terminated(found.info.run_id)

    def close(self) -> None:
        """Nothing: every call has waited for its answer."""

    def _experiment(self, study: str) -> str:
        if study not in self._experiments:
            found = self._client.get_experiment_by_name(study)
            self._experiments[study] = self._client.create_experiment(study) if found is None else found.experiment_id
        return self._experiments[study]

    def _search(self, study: str, wanted: str) -> "Iterator[StoredRun]":
        token = None
        while True:
            page = self._client.search_runs([self._experiment(study)], wanted, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _find(self, study: str, cell: str) -> "StoredRun | None":
        return min(self._search(study, _is_of(cell)), key=lambda each: each.info.run_id, default=None)

    def _opened(self, run: Run, started: float) -> _Open:
        """The run as the server has it, made where it is missing."""
        if (known := self._runs.get(run.key)) is not None:
            return known
        found = self._find(run.study, run.cell)
        if found is None:
            return self._create(run, started)
        names = list(found.data.metrics)
        history = [each for name in names for each in self._client.get_metric_history(found.info.run_id, name)]
        sent = {(each.key, each.step): each.value for each in history}
        opened = _Open(found.info.run_id, sent, set(found.data.params))
        self._runs[run.key] = opened
        return opened

    def _create(self, run: Run, started: float) -> _Open:
        """A new run; where another driver has just made one, that one. MLflow has no run of a given id."""
        while True:
            created = self._client.create_run(
                self._experiment(run.study), start_time=int(1000 * started), tags={_CELL: run.cell}, run_name=run.name
            )
            number = created.info.run_id
            if all(each.info.run_id == number for each in self._search(run.study, _is_of(run.cell))):
                opened = self._runs[run.key] = _Open(number)
                return opened
            # Both may have seen the other's run, and both take theirs back.
            self._client.delete_run(number)
            time.sleep(random.uniform(0, _PAUSE))
            if self._find(run.study, run.cell) is not None:
                return self._opened(run, started)

    def _describe(self, opened: _Open, run: Run, facts: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        params = [
            Param(_fit(name), str(value)[:_LONGEST_PARAM])
            for name, value in run.parameters.items()
            if _fit(name) not in opened.params  # MLflow lets no value change
        ]
        for some in _chunks(params, _PARAMS):
            self._client.log_batch(opened.id, params=some)
        opened.params.update(param.key for param in params)
        of_mlflow = {"mlflow.source.name": "scale-ray", "mlflow.source.type": "LOCAL"}
        if commit := facts.get("git_commit"):
            of_mlflow["mlflow.source.git.commit"] = commit
        told = {"study": run.study, "group": run.group, **of_mlflow, **run.facts, **facts}
        tags = [RunTag(_fit(name), value[:_LONGEST_TAG]) for name, value in told.items()]
        for some_tags in _chunks(tags, _TAGS):
            self._client.log_batch(opened.id, tags=some_tags)

    def _send(self, opened: _Open, points: Mapping[int, Mapping[str, float]], times: Mapping[int, float]) -> None:
        """Send what the server does not have yet."""
        from mlflow.entities import Metric

        lacking = [
            Metric(_fit(name), value, int(1000 * times[step]), step)
            for step, metrics in points.items()
            for name, value in metrics.items()
            if (_fit(name), step) not in opened.sent
        ]
        for some in _chunks(lacking, _METRICS):
            self._client.log_batch(opened.id, metrics=some)
        opened.sent |= {(metric.key, metric.step): metric.value for metric in lacking}

    def _attach(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with in_folder(files) as folder:
            self._client.log_artifacts(run_id, str(folder))


def _is_of(cell: str) -> str:
    return f"tags.`{_CELL}` = '{cell}'"


def _contradicts(opened: _Open, points: Mapping[int, Mapping[str, float]]) -> bool:
    """Whether the server has another value than a point has."""
    return any(
        not math.isclose(opened.sent.get((_fit(name), step), value), value, rel_tol=1e-9)
        for step, metrics in points.items()
        for name, value in metrics.items()
    )


def _fit(name: str) -> str:
    """The name as MLflow takes it."""
    return _UNFIT.sub("_", name)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
