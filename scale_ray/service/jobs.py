"""Studies as Ray jobs: submitted, asked for, stopped. One method for each thing that the service needs of Ray."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

# What a job is: `gone` where the cluster does not know it, as after the loss of its head.
JobState = Literal["pending", "running", "stopped", "succeeded", "failed", "gone"]


_SECONDS = 20  # for an answer: a head that is silent must not stop the rounds
_NODES = 10_000  # that Ray is asked for; by default it tells 100


class RayUnreachable(RuntimeError):
    """The cluster's head does not answer."""


@dataclass(frozen=True)
class Job:
    """A job as Ray knows it."""

    state: JobState
    exit_code: int | None = None
    message: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ("pending", "running")


@dataclass(frozen=True)
class Cluster:
    """The living nodes: how many, their CPUs and GPUs, those in use, and the most that one node has."""

    nodes: int
    total: Mapping[str, float]
    used: Mapping[str, float]
    largest: Mapping[str, float]


class _Client(JobSubmissionClient):
    """Ray's client, which waits for an answer without end."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, timeout=_SECONDS, **kwargs)


class Jobs:
    """The jobs of a cluster.

    Args:
        address: URL of the dashboard of its head.
        python: the interpreter of a study's driver, on the head.

    Raises:
        RayUnreachable: from every method, where the head does not answer.
        JobRefused: from `submit`.
    """

    def __init__(self, address: str, python: str):
        self.address, self._python = address, python
        self._client: Any = None

    def find(self, job: str) -> Job:
        """The job of that id."""
        try:
            info = self._ask("get_job_info", job)
        except _NoSuchJob:
            return Job("gone")
        state = cast(JobState, info.status.value.lower())
        return Job(state, info.driver_exit_code, info.message or "")

    def submit(self, job: str, store: str, study: str) -> None:
        """Start the driver of a study that was written into its store. A job of that id may be there already.

        Args:
            job: its id.
            store: location.
            study: name.

        Raises:
            JobRefused: the cluster does not take it now.
        """
        # -P: what lies in the folder in which Ray was started is imported by no job.
        words = [self._python, "-P", "-m", "scale_ray.service.driver", store, study]
        try:
            self._ask("submit_job", entrypoint=shlex.join(words), submission_id=job, metadata={"study": study})
        except JobRefused as error:
            if "already exists" not in str(error):
                raise

    def stop(self, job: str) -> None:
        """End the job at once."""
        try:
            self._ask("stop_job", job)
        except (_NoSuchJob, JobRefused):
            return

    def log(self, job: str) -> str:
        """What its driver has printed; empty where the job is gone."""
        try:
            return str(self._ask("get_job_logs", job))
        except (_NoSuchJob, JobRefused):
            return ""

    def cluster(self) -> Cluster:
        """What the living nodes have, and what of it is in use."""
        answer = self._ask("_do_request", "GET", f"/api/v0/nodes?detail=1&limit={_NODES}")
        nodes = answer.json()["data"]["result"]["result"]
        usage = self._ask("_do_request", "GET", "/api/cluster_status").json()["data"].get("clusterStatus") or {}
        in_use = (usage.get("loadMetricsReport") or {}).get("usage") or {}
        alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
        of_nodes = {name: [float(resources.get(name, 0)) for resources in alive] for name in ("CPU", "GPU")}
        return Cluster(
            len(alive),
            total={name: sum(each) for name, each in of_nodes.items()},
            used={name: float(in_use[name][0]) for name in of_nodes if name in in_use},
            largest={name: max(each, default=0.0) for name, each in of_nodes.items()},
        )

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._connected(), method)(*args, **kwargs)
        except (OSError, AuthenticationError) as error:
            self._client = None
            reason = str(error).partition("\n")[0]
            raise RayUnreachable(f"the cluster's head at {self.address} does not answer: {reason}") from error
        except RuntimeError as error:
            text = str(error)
            if "does not exist" in text or "status code 404" in text:
                raise _NoSuchJob(text) from error
            raise JobRefused(text) from error

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _Client(self.address)
        return self._client


class _NoSuchJob(RuntimeError):
    pass


class JobRefused(RuntimeError):
    """Ray does not take the job, for now or for good."""
