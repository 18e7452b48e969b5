"""Studies on a real SLURM of a controller and two nodes, submitted by `scale-ray submit --slurm`, and disturbed."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from machines import REPOSITORY, Laptop, machines, skip_without
from studies import LIMIT, finish, results

from scale_ray.store import Store

pytestmark = pytest.mark.slow

SETTINGS = Path(__file__).with_name("slurm.conf")

# Four cells of some seconds, and no checkpoint but those of a notice and of every minute.
GRID = ["--benchmark", "digits", "--pairs", "mnist:mnistm", "--losses", "ce,ce+ssl", "--seeds", "2"]
STUDY = ["ablate", *GRID, "--steps", "200", "--checkpoint-every", "100000"]


class Slurm(Laptop):
    """A laptop from which jobs are submitted."""

    def __init__(self, folder: Path, process: int):
        variables = {
            name: os.environ[name] for name in ("SCALE_RAY_CACHE", "RAY_worker_niceness") if name in os.environ
        }
        variables |= {"SLURM_CONF": f"{folder}/slurm.conf", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        super().__init__(folder, process, variables, workplace=folder / "shared")

    def submit(self, *options: str, command: list[str]) -> str:
        """Submit a command; return the job's id."""
        printed = self.run("scale-ray", "submit", "--slurm", *options, "--", *command)
        found = re.search(r"^submitted: job (\d+), by ", printed, re.MULTILINE)
        assert found, printed
        return found[1]

    def state(self, job: str) -> str:
        """In SLURM's words, of every task; empty where it has left the queue."""
        return " ".join(self.run("squeue", "--noheader", "--format=%T", "--states=all", f"--job={job}").split())

    def ended(self, job: str) -> list[str]:
        """The states in which the job's tasks have left the queue."""
        found = re.findall(rf"^JobId={job} .* JobState=(\w+)", (self.folder / "ended.txt").read_text(), re.MULTILINE)
        return list(found)

    def wait(self, condition: Callable[[], bool], job: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"{self.state(job)}\n{self.log(job)}"
            time.sleep(1)

    def wait_for_requeue(self, job: str) -> None:
        """Wait until the job is back in the queue, and let it start at once: SLURM itself waits for two minutes."""
        self.wait(lambda: self.state(job) == "PENDING", job)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")

    def wait_for_end(self, job: str) -> str:
        """Wait until the job has left the queue for good; return its log."""
        self.wait(lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(self.state(job).split()), job)
        return self.log(job)

    def log(self, job: str) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "shared").glob(f"*-{job}*.log")))

    def store(self, name: str) -> Path:
        return self.folder / "shared" / name


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    skip_without("munged", "slurmctld", "slurmd", "sbatch", debian="munge, slurmctld, slurmd, slurm-client")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("shared", "state", "spool-head", "spool-worker"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(SETTINGS.read_text().replace("FOLDER", str(folder)))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # none of its controllers is used
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # a GPU by name alone
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "ended.txt").touch()
    with machines(folder, "slurm", 6818) as process:
        made = Slurm(folder, process)
        while made.run("sinfo", "--noheader", "--format=%D", "--states=idle").split() != ["2"]:
            time.sleep(0.5)
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the study leaves on this machine without SLURM."""
    store = tmp_path_factory.mktemp("undisturbed")
    done = finish([sys.executable, "-m", "scale_ray.cli", *STUDY, "--store", str(store), "--local"])
    assert done.returncode == 0, done.stderr
    return results(store)


def trainings(store: Path) -> int:
    """How many trainings have a slot, as the drivers announce."""
    return sum(path.read_text().count('"started": true') for path in store.glob("drivers/*.json"))


def raylets(job: str) -> list[psutil.Process]:
    """Of the job's Ray: this machine sees the processes of all."""
    found = psutil.process_iter(["name", "cmdline"])
    return [
        each for each in found if each.info["name"] == "raylet" and f"scale_ray_{job}_" in str(each.info["cmdline"])
    ]


def hosts(store: Path) -> set[str]:
    return {record.provenance.host for record in Store(store).records()}


def checkpoints_since(store: Path, moment: float) -> int:
    return sum(path.stat().st_mtime >= moment for path in store.glob("checkpoints/*.pt"))


def test_a_study_on_two_nodes_is_preempted_and_goes_on(slurm: Slurm, undisturbed: dict[str, str]) -> None:
    """By a job of another partition, as SLURM's own rules have it: a notice of minutes, and nothing is lost."""
    store = slurm.store("preempted")
    wanted = ["--nodes=2", "--cpus-per-task=1", "--partition=batch"]
    job = slurm.submit(*wanted, command=[*STUDY, "--store", str(store)])
    slurm.wait(lambda: trainings(store) == 2, job)
    the_token_is_asked_for(slurm, job)
    moment = time.time()
    whole_nodes = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"]
    slurm.run("sbatch", "--partition=urgent", *whole_nodes, "--output=urgent.log", "--wrap=sleep 5")
    slurm.wait_for_requeue(job)
    assert checkpoints_since(store, moment) == 2
    assert not list(store.glob("drivers/*"))
    log = slurm.wait_for_end(job)
    assert log.count("ordered to stop: every training saves its state first") == 1
    assert "requeued 0 times before" in log
    assert "requeued 1 times before" in log
    assert slurm.ended(job)[-1] == "COMPLETED"
    assert results(store) == undisturbed
    assert hosts(store) == {"head", "worker"}
    assert (store / "report" / "report.html").is_file()
    assert list(Path("/tmp").glob(f"scale_ray_{job}_*")) == []


def the_token_is_asked_for(slurm: Slurm, job: str) -> None:
    """The job's Ray refuses whoever has none."""
    words = [word for raylet in raylets(job) for word in raylet.cmdline()]
    (address,) = {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    with slurm.start("env", "RAY_AUTH_MODE=disabled", "ray", "status", f"--address={address}") as process:
        output, _ = process.communicate()
    assert process.returncode != 0
    assert "token" in output


def test_what_a_time_limit_ends_goes_on(slurm: Slurm, undisturbed: dict[str, str]) -> None:
    store = slurm.store("limited")
    job = slurm.submit("--cpus-per-task=2", command=[*STUDY, "--store", str(store)])
    slurm.wait(lambda: trainings(store) == 2, job)
    moment = time.time()
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=00:03:00")  # so that its notice is due
    slurm.wait_for_requeue(job)
    assert checkpoints_since(store, moment) == 2
    log = slurm.wait_for_end(job)
    assert "back into the queue; the same command goes on then" in log
    assert "requeued 1 times before" in log
    assert slurm.ended(job)[-1] == "COMPLETED"
    assert results(store) == undisturbed


def test_who_requeues_or_cancels_it_loses_nothing(slurm: Slurm) -> None:
    """SLURM then leaves half a minute. After a requeue it goes on, after `scancel` it does not."""
    store = slurm.store("cancelled")
    job = slurm.submit("--cpus-per-task=2", command=[*STUDY, "--steps", "3000", "--store", str(store)])
    slurm.wait(lambda: trainings(store) == 2, job)
    moment = time.time()
    slurm.run("scontrol", "requeue", job)
    slurm.wait_for_requeue(job)
    assert checkpoints_since(store, moment) == 2
    slurm.wait(lambda: trainings(store) == 2, job)
    moment = time.time()
    slurm.run("scancel", job)
    log = slurm.wait_for_end(job)
    assert checkpoints_since(store, moment) == 2
    assert "back into the queue" not in log
    assert slurm.ended(job)[-1] == "CANCELLED"
    assert results(store) == {}


def test_two_independent_drivers_train_each_cell_once(slurm: Slurm, undisturbed: dict[str, str]) -> None:
    """Each has one slot, and another cell that waits for it."""
    store = slurm.store("array")
    wanted = ["--array=2", "--cpus-per-task=1", "--sbatch=mem=3000M"]  # which a node has once
    job = slurm.submit(*wanted, command=[*STUDY, "--store", str(store)])
    log = slurm.wait_for_end(job)
    assert slurm.ended(r"\d+")[-2:] == ["COMPLETED", "COMPLETED"]
    assert len(re.findall(r": done, target", log)) == 4
    assert results(store) == undisturbed
    assert hosts(store) == {"head", "worker"}


def test_two_clusters_share_their_nodes(slurm: Slurm) -> None:
    """No port of one is a port of the other, and the end of one does not end the other."""
    store = slurm.store("beside")
    short = ["ablate", *GRID, "--steps", "20", "--store", str(store)]
    job = slurm.submit("--array=2", "--nodes=2", "--cpus-per-task=1", command=short)
    log = slurm.wait_for_end(job)
    assert log.count("on head,worker, requeued 0 times before") == 2
    assert slurm.ended(r"\d+")[-2:] == ["COMPLETED", "COMPLETED"]
    assert len(results(store)) == 4


def test_a_worker_node_whose_ray_dies_is_done_without(slurm: Slurm, undisturbed: dict[str, str]) -> None:
    store = slurm.store("one_dies")
    job = slurm.submit("--nodes=2", "--cpus-per-task=1", command=[*STUDY, "--store", str(store)])
    slurm.wait(lambda: trainings(store) == 2, job)
    (raylet,) = [each for each in raylets(job) if "--node_ip_address=10.77.0.2" in each.cmdline()]
    raylet.kill()
    slurm.wait_for_end(job)
    assert slurm.ended(job) == ["COMPLETED"]
    assert results(store) == undisturbed


def test_trainings_share_what_the_job_has_on_each_node(slurm: Slurm) -> None:
    """A GPU, of which each takes a half or the whole. SLURM counts it; there is none on this machine."""
    store = slurm.store("gpus")
    halves = [*STUDY, "--steps", "3000", "--gpus-per-trial", "0.5", "--store", str(store)]
    job = slurm.submit("--nodes=2", "--cpus-per-task=2", "--gpus-per-node=1", command=halves)
    slurm.wait(lambda: trainings(store) == 4, job)
    slurm.run("scancel", job)
    slurm.wait_for_end(job)
    job = slurm.submit("--cpus-per-task=2", "--gpus-per-node=1", command=[*halves, "--gpus-per-trial", "1"])
    slurm.wait(lambda: trainings(store) == 1, job)
    time.sleep(20)  # of two announcements
    assert trainings(store) == 1
    slurm.run("scancel", job)
    slurm.wait_for_end(job)


def test_a_study_that_fails_is_not_put_back(slurm: Slurm) -> None:
    failing = ["ablate", *GRID, "--seeds", "1", "--steps", "20", "--set", "optim.learning_rate=1e20"]
    job = slurm.submit("--cpus-per-task=2", command=[*failing, "--store", str(slurm.store("failing"))])
    log = slurm.wait_for_end(job)
    assert "2 cells failed, their reasons are in the report" in log
    assert "back into the queue" not in log
    assert slurm.ended(job) == ["FAILED"]


def test_a_time_limit_before_any_training_does_not_repeat_for_ever(slurm: Slurm) -> None:
    store = slurm.store("too_short")
    job = slurm.submit("--time=1", "--cpus-per-task=2", command=[*STUDY, "--store", str(store)])
    log = slurm.wait_for_end(job)
    assert "back into the queue" not in log
    assert slurm.ended(job) == ["FAILED"]
