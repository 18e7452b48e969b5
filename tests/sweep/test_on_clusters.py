"""Studies on clusters of several nodes, disturbed in every way that we could think of.

    make faults

After each disturbance: every cell has exactly one record, equal to the undisturbed one, and no placement group is left.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import cluster, connected, groups, left_behind, values_left
from metadata_service import Metadata, metadata_service
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from s3_server import s3_server
from studies import LIMIT, command, descendants, results, run, wait_until

from scale_ray.store import Store

pytestmark = pytest.mark.slow

# Two cells of some seconds each.
LONG = ("--seeds", "1", "--losses", "ce,ce+ssl+dist+reg", "--set", "optim.steps=400", "--set", "optim.warmup_steps=99")
# With a warm-up that both of them share.
SHARED = ("--losses", "ce+ssl,ce+ssl+dist+reg")


@pytest.fixture(scope="module")
def undisturbed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    finished = run(tiny_root, store, *LONG)
    assert finished.returncode == 0, finished.stderr
    return store


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    with cluster(1, 1) as made:
        yield made


@pytest.fixture
def metadata() -> Iterator[type[Metadata]]:
    with metadata_service() as service:
        yield service


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tiny_root: Path) -> Iterator[Start]:
    """Starts a study on the cluster at an address; what still runs when the test has ended is killed."""
    studies: list[subprocess.Popen[str]] = []

    def start(store: Path | str, address: str | None, *more: str) -> subprocess.Popen[str]:
        line = command(tiny_root, store, *LONG, *more, address=address)
        studies.append(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return studies[-1]

    yield start
    for study in studies:
        if study.poll() is None:
            study.kill()
        if study.stdout and not study.stdout.closed:
            study.communicate()


def ended(study: subprocess.Popen[str], status: int = 0) -> str:
    printed, _ = study.communicate(timeout=LIMIT)
    assert study.returncode == status, printed
    return printed


def same(store: Path | str, undisturbed: Path) -> None:
    """One record a cell, with the undisturbed numbers; nothing is left of the way there."""
    assert results(store) == results(undisturbed)
    opened = Store(store)
    assert opened.checkpoint_keys() == opened.stage_keys() == []
    assert opened.files.names("leases") == opened.files.names("drivers") == []
    if opened.folder is not None:
        runs = opened.folder / ".ray_train"
        assert not list(opened.folder.glob(".tune_*"))
        assert not runs.exists() or not list(runs.iterdir())


def ray_processes(name: str) -> list[int]:
    """Processes of Ray on this machine below this one, by what Ray calls them: Tune's trials are `ImplicitFunc`."""
    return [pid for pid, line in descendants(os.getpid()) if line.startswith("ray::") and name in line]


def has_checkpoint(store: Path) -> Callable[[], bool]:
    """Whether there is a checkpoint of any stage."""
    return lambda: any(store.glob("checkpoints/*.pt"))


@pytest.mark.parametrize(
    ("nodes", "workers"), [((1, 1), 1), ((2, 2), 2), ((4, 4, 4, 4), 4)], ids=["2 CPUs", "4 CPUs", "16 CPUs"]
)
def test_more_trials_than_slots_finish_and_leave_nothing(
    nodes: tuple[int, ...], workers: int, start: Start, tmp_path: Path
) -> None:
    short = ("--losses", "ce,ce+ssl", "--seeds", "3", "--set", "optim.steps=20")
    with cluster(*nodes) as made:
        study = start(tmp_path, made.address, *short, "--workers-per-trial", str(workers))
        printed = ended(study)
        assert "[6 of 6 done, 0 running, 0 failed]" in printed
        assert left_behind(made.address) == {}
        assert values_left(made.address) == []
    provenances = [record.provenance for record in Store(tmp_path).records()]
    ran = ("ray train", workers, "gloo") if workers > 1 else ("ray tune", 1, None)
    assert {(facts.runner, facts.workers, facts.backend) for facts in provenances} == {ran}


def test_a_study_on_a_cluster_gives_the_records_of_this_machine(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    ended(start(tmp_path, two_nodes.address, *SHARED))
    opened = Store(tmp_path)
    assert {record.provenance.shared_steps for record in opened.records()} == {100}
    with_both = results(tmp_path).items() & results(undisturbed).items()
    assert len(with_both) == 1  # the other one is ce
    assert opened.checkpoint_keys() == opened.stage_keys() == []
    assert left_behind(two_nodes.address) == {}


def test_one_worker_gives_the_same_records_under_ray_train(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    ended(start(tmp_path, two_nodes.address, "--ray-train", "always"))
    assert {record.provenance.runner for record in Store(tmp_path).records()} == {"ray train"}
    same(tmp_path, undisturbed)
    assert left_behind(two_nodes.address) == {}


def test_nothing_of_a_trial_runs_on_a_head_that_trains_nothing(
    two_nodes: Cluster, start: Start, tmp_path: Path
) -> None:
    """A head of 16 GiB has to bear hundreds of stages. One cleaner of placement groups a study is all."""
    study = start(tmp_path, two_nodes.address, "--ray-train", "always", "--set", "optim.steps=4000")
    wait_until(lambda: bool(ray_processes("RayTrainWorker")), study)
    raylet = two_nodes.head_node.all_processes["raylet"][0].process.pid
    lines = [line.split()[0] for _, line in descendants(raylet) if line.startswith("ray::")]
    names = {line.removeprefix("ray::").partition(".")[0] for line in lines}
    of_the_node = {"IDLE", "DashboardAgent", "RuntimeEnvAgent", "_AutoscalingCoordinatorActor"}
    assert names - of_the_node == {"GroupCleaner"}


@pytest.mark.parametrize(
    ("victim", "ray_train"),
    [
        ("ImplicitFunc", "auto"),
        *((victim, "always") for victim in ("RayTrainWorker", "TrainController", "ImplicitFunc")),
    ],
)
def test_a_killed_process_is_replaced(
    victim: str, ray_train: str, two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    study = start(tmp_path, two_nodes.address, "--ray-train", ray_train)
    wait_until(has_checkpoint(tmp_path), study)
    os.kill(ray_processes(victim)[0], signal.SIGKILL)
    ended(study)
    same(tmp_path, undisturbed)
    assert left_behind(two_nodes.address) == {}


def test_a_killed_controller_leaves_no_group_that_waits(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    """Else its group would get resources later, and nobody would use them."""
    with connected(two_nodes.address):
        everything = placement_group([{"CPU": 1}, {"CPU": 1}])
        assert everything.wait(LIMIT)
        study = start(tmp_path, two_nodes.address, "--ray-train", "always")

        def waiting() -> set[str]:
            return {key for key, state in groups().items() if state == "PENDING"}

        wait_until(lambda: len(waiting()) == 1, study)
        (before,) = waiting()
        os.kill(ray_processes("TrainController")[0], signal.SIGKILL)
        wait_until(lambda: len(waiting()) == 1 and before not in waiting(), study)
        remove_placement_group(everything)
    ended(study)
    same(tmp_path, undisturbed)
    assert left_behind(two_nodes.address) == {}


def test_a_stopped_job_leaves_nothing_on_its_cluster(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    """SIGTERM, as `ray job stop` sends it: Ray sees the end of the job, and no request for nodes outlives it."""
    study = start(tmp_path, two_nodes.address)
    wait_until(has_checkpoint(tmp_path), study)
    study.send_signal(signal.SIGTERM)
    ended(study, status=128 + signal.SIGTERM)
    assert left_behind(two_nodes.address) == {}
    ended(start(tmp_path, two_nodes.address))
    same(tmp_path, undisturbed)


def test_a_killed_node_is_done_without(undisturbed: Path, start: Start, tmp_path: Path) -> None:
    with cluster(1, 1) as made:
        study = start(tmp_path, made.address)
        wait_until(has_checkpoint(tmp_path), study)
        made.remove_node(next(iter(made.worker_nodes)), allow_graceful=False)
        ended(study)
        same(tmp_path, undisturbed)
        assert left_behind(made.address) == {}


def test_a_node_that_joins_is_used(undisturbed: Path, start: Start, tmp_path: Path) -> None:
    """The cluster has no room at all at first, as one that an autoscaler has not yet scaled up."""
    with cluster() as made:
        study = start(tmp_path, made.address)
        time.sleep(20)
        assert study.poll() is None
        assert results(tmp_path) == {}
        made.add_node(num_cpus=2, object_store_memory=80 * 2**20)
        ended(study)
    same(tmp_path, undisturbed)


def test_a_killed_driver_leaves_what_the_next_goes_on_from(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    study = start(tmp_path, two_nodes.address)
    wait_until(has_checkpoint(tmp_path), study)
    study.kill()
    ended(start(tmp_path, two_nodes.address))
    same(tmp_path, undisturbed)
    assert left_behind(two_nodes.address) == {}


def test_an_interrupted_study_leaves_no_placement_group(
    two_nodes: Cluster, undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    study = start(tmp_path, two_nodes.address)
    wait_until(has_checkpoint(tmp_path), study)
    study.send_signal(signal.SIGINT)
    printed = ended(study, status=130)
    assert "run the same command again" in printed
    assert left_behind(two_nodes.address) == {}
    ended(start(tmp_path, two_nodes.address))
    same(tmp_path, undisturbed)


def test_a_failing_stage_leaves_no_placement_group(two_nodes: Cluster, start: Start, tmp_path: Path) -> None:
    ended(start(tmp_path, two_nodes.address, "--set", "optim.learning_rate=1e20"), status=1)
    failures = [record.failure for record in Store(tmp_path).records()]
    assert [failure.kind for failure in failures if failure] == 2 * ["TrainingDiverged"]
    assert left_behind(two_nodes.address) == {}


def test_a_killed_head_takes_the_cluster_and_not_the_store(undisturbed: Path, start: Start, tmp_path: Path) -> None:
    with cluster(1, 1) as made:
        study = start(tmp_path, made.address)
        wait_until(has_checkpoint(tmp_path), study)
        made.remove_node(made.head_node, allow_graceful=False)
    study.kill()  # it would wait a minute for the head to come back
    with cluster(1, 1) as made:
        ended(start(tmp_path, made.address))
        same(tmp_path, undisturbed)
        assert left_behind(made.address) == {}


@pytest.mark.parametrize(("ray_train", "process"), [("auto", "ImplicitFunc"), ("always", "RayTrainWorker")])
def test_a_node_about_to_be_taken_away_saves_first(
    ray_train: str, process: str, metadata: type[Metadata], start: Start, tiny_root: Path, tmp_path: Path
) -> None:
    """Spot instances give a notice; no checkpoint but the one of the notice is there to go on from."""
    long = ("--losses", "ce", "--set", "optim.steps=12000", "--set", "evaluate_every=4000")
    undisturbed, store = tmp_path / "undisturbed", tmp_path / "store"
    assert run(tiny_root, undisturbed, *LONG, *long).returncode == 0
    with cluster(1) as made:
        study = start(store, made.address, *long, "--checkpoint-every", "100000", "--ray-train", ray_train)
        wait_until(lambda: bool(ray_processes(process)), study)
        (node,) = made.worker_nodes
        made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        announce(made, node.node_id)
        wait_until(has_checkpoint(store), study)
        ended(study)
        same(store, undisturbed)


def announce(made: Cluster, node: str) -> None:
    """The cloud says that this node goes away; the watcher there hears it."""
    Metadata.taken_away = True
    watcher = [sys.executable, "-m", "scale_ray.sweep.spot", "aws", "--address", made.address, "--node-id", node]
    subprocess.run(watcher, check=True, capture_output=True, timeout=LIMIT)


def test_a_store_on_s3_may_be_out_of_reach_for_20_seconds(undisturbed: Path, start: Start) -> None:
    with s3_server() as server, cluster(1, 1) as made:
        store = server.new_url()
        study = start(store, made.address)
        wait_until(lambda: bool(_checkpoints_on(store)), study)
        server.fail_for(20)
        ended(study)
        same(store, undisturbed)


def _checkpoints_on(store: str) -> list[str]:
    try:
        return Store(store).checkpoint_keys()
    except ValueError:
        return []  # the study has not made its store yet


def test_two_drivers_share_one_study(start: Start, tmp_path: Path) -> None:
    """In two terminals, each with a Ray of its own: no stage is trained twice, both end well."""
    first = start(tmp_path, None, *SHARED)
    wait_until(lambda: any(tmp_path.glob("leases/*")), first)
    printed = [ended(study) for study in (first, start(tmp_path, None, *SHARED))]
    assert "another driver works on this store" in printed[1]
    assert {record.provenance.runner for record in Store(tmp_path).records()} == {"ray tune"}
    lines = [line for text in printed for line in text.splitlines() if ": done" in line]
    assert len(lines) == 3  # the warm-up and the two cells, each by one driver
    assert [record.status for record in Store(tmp_path).records()] == ["done", "done"]
    same(tmp_path, tmp_path)
