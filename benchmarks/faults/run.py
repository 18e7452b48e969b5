"""One run of the campaign: a study, its kills, and what is there when all cells are done."""

import os
import shutil
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from clusters import cluster, left_behind

from faults import processes
from faults.choices import Kill, Run
from faults.stores import LoggingServer, Watched, WatchedFolder, bucket, left_in, results, wait_for
from faults.study import Driver, command, tables, undisturbed, workers_option

_S3_SECONDS = 20.0
_NODE = {"object_store_memory": 80 * 2**20}  # Ray's least is 75 MB

# Seconds to wait for a process of the wanted kind before another kind is taken; for a temporary file; for a driver that
# has lost its Ray.
_LOOK, _WRITING, _WITHOUT_RAY = 60.0, 3.0, 60.0

# Seconds for which a driver of Ray waits for a lost head to come back; Ray's default is 60.
_HEAD_MAY_RETURN = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}

# Seconds within which a run's processes must be gone, and the agents of its Rays. An agent that loses its raylet looks
# for it five times in 10 s, then reports the loss to the head with a limit of 60 s that Ray does not let anyone set
# (`publish_error_to_driver` in ray/_private/utils.py). Where the head is dead too, that is how long it lives.
_PROCESSES_END, _AGENTS_END = 20.0, 150.0

_STARTS = 8  # of one driver beyond its kills; then the run has failed


class Disturbed:
    """A study with its drivers, its cluster and its store, in this process and below it.

    Args:
        run: what to do.
        root: the images.
        folder: for logs and the store.
        limit: seconds after which the run is given up.
    """

    def __init__(self, run: Run, root: Path, folder: Path, limit: float):
        self._run, self._root, self._folder = run, root, folder
        self._deadline = time.monotonic() + limit
        self._began = time.monotonic()
        self._stack, self._nodes = ExitStack(), ExitStack()
        self._server: LoggingServer | None = None
        self._cluster: Any = None
        self.made: list[dict[str, Any]] = []

    def __enter__(self) -> "Disturbed":
        os.environ.update(_HEAD_MAY_RETURN)
        if self._run.store == "s3":
            self.store: Watched
            self.store, self._server = self._stack.enter_context(bucket())
        else:
            folder = WatchedFolder(self._folder / "store")
            self._stack.callback(folder.stop)
            self.store = folder
        self._open_cluster()
        self.drivers = [Driver(f"driver{number}", self._folder) for number in range(self._run.drivers)]
        return self

    def __exit__(self, *_: object) -> None:
        for driver in self.drivers:
            driver.kill()
        self._nodes.close()
        self._stack.close()

    def disturb(self) -> bool:
        """Do every kill that the study lives long enough for, and go on to its end; return whether there is one."""
        for driver in self.drivers:
            self._start(driver)
        for kill in self._run.kills:
            if not self._until(kill.after):
                break
            self._pause(kill.seconds)
            if not self._strike(kill):
                break
        return self._until(None)

    def placement_groups(self) -> dict[str, str]:
        return left_behind(self._cluster.address) if self._cluster is not None else {}

    def stop_cluster(self) -> None:
        """Ends the cluster; what the drivers have started on it must be gone before and after."""
        self._nodes.close()
        self._cluster = None

    def say(self, text: str) -> None:
        print(
            f"  {time.monotonic() - self._began:6.1f} s, {self.store.done} of {self._run.cells} done: {text}",
            flush=True,
        )

    # Drivers

    def _start(self, driver: Driver) -> None:
        more = ("--local",) if self._cluster is None else ("--address", self._cluster.address)
        more = (*more, *workers_option(self._run.workers))
        driver.start(command(self._root, self.store.location, self._run.cells, *more))

    def _tend(self) -> None:
        """Run the command again of every driver that has not ended well."""
        for driver in self.drivers:
            if driver.pid is None and not driver.well:
                driver.note_end()
                if driver.starts <= _STARTS + len(self._run.kills):
                    self.say(f"{driver.name} runs its command again" + (f" ({driver.ends[-1]})" if driver.ends else ""))
                    self._start(driver)

    def _until(self, done: int | None) -> bool:
        """Wait until so many cells are done, or (None) until all drivers have ended well; return whether it came so."""
        while time.monotonic() < self._deadline:
            self._tend()
            running = [driver for driver in self.drivers if driver.pid is not None]
            if done is not None and self.store.done >= done:
                return bool(running)
            if not running:
                return done is None and all(driver.well for driver in self.drivers)
            time.sleep(0.02)
        self.say("given up: out of time")
        return False

    def _pause(self, seconds: float) -> None:
        moment = time.monotonic() + seconds
        while time.monotonic() < moment:
            self._tend()
            time.sleep(0.02)

    # Kills

    def _strike(self, kill: Kill) -> bool:
        """Do the kill: of the first kind that has a process, each kind given some time; return whether it was done."""
        for kind in kill.kinds:
            found = self._find(kind, kill)
            if found is None:
                continue
            if kill.writing and kind in ("driver", "trial", "worker"):
                wait_for(partial(self.store.is_written_by, kind), _WRITING, 0)
            self._do(kind, found)
            self.made.append(
                {"kind": kind, "done": self.store.done, "seconds": round(time.monotonic() - self._began, 1)}
            )
            self.say(f"killed: {kind}")
            return True
        return False

    def _find(self, kind: str, kill: Kill) -> Any:
        """The victim: a pid, a driver or a node; None where there is none."""
        victims: list[Any] = []

        def look() -> bool:
            self._tend()
            victims[:] = self._victims(kind)
            return bool(victims) or not any(driver.pid for driver in self.drivers)

        wait_for(look, _LOOK, 0.05)
        return victims[int(kill.which * len(victims))] if victims else None

    def _victims(self, kind: str) -> list[Any]:
        if kind == "trial":
            return processes.trials()
        if kind == "worker":
            return processes.named("RayTrainWorker")
        if kind == "controller":
            return processes.named("TrainController")
        if kind == "raylet":
            return list(self._cluster.worker_nodes)
        if kind == "s3":
            return [self._server]
        return [
            driver for driver in self.drivers if driver.pid is not None and (kind == "driver" or self._has_head(driver))
        ]

    def _has_head(self, driver: Driver) -> bool:
        """Whether a head runs that this driver uses."""
        return self._cluster is not None or bool(processes.heads(driver.pid))

    def _do(self, kind: str, victim: Any) -> None:
        if kind == "driver":
            victim.kill()
        elif kind == "s3":
            victim.fail_for(_S3_SECONDS)
        elif kind == "raylet":
            self._cluster.remove_node(victim, allow_graceful=False)
            self._cluster.add_node(num_cpus=self._run.workers, **_NODE)
        elif kind == "head" and self._cluster is None:
            victim.kill_head(_WITHOUT_RAY)
        elif kind == "head":
            self._lose_head()
        else:
            processes.kill(victim)

    def _open_cluster(self) -> None:
        if self._run.place == "cluster":
            self._cluster = self._nodes.enter_context(cluster(self._run.workers, self._run.workers))

    def _lose_head(self) -> None:
        """The head dies, and with it the cluster, and its drivers end. Another cluster comes."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        for driver in self.drivers:
            driver.outlive_head(_WITHOUT_RAY)
        self._nodes.close()
        self._open_cluster()


def perform(run: Run, root: Path, work: Path, limit: float) -> dict[str, Any]:
    """Make a run and look at what it leaves.

    Args:
        root: the images.
        work: holds the undisturbed studies; this run gets a folder in it.
        limit: seconds after which it is given up.
    """
    expected, expected_tables = _expected(root, work, run)
    folder = work / f"run-{run.seed}-{run.number}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
    folder.mkdir(parents=True)
    began = time.monotonic()
    with Disturbed(run, root, folder, limit) as disturbed:
        ended = disturbed.disturb()
        disturbed.say("all drivers have ended well" if ended else "NOT all drivers have ended well")
        groups = disturbed.placement_groups() if ended else {}
        processes_of_jobs = processes.settled(processes.of_jobs, _PROCESSES_END)
        disturbed.stop_cluster()
        found = results(disturbed.store.location)
        made_tables = tables(disturbed.store.location, folder / "report")
        left = left_in(disturbed.store.names())
        left["temporary"] += ["an unfinished upload"] * disturbed.store.unfinished_uploads()
        twice = disturbed.store.twice
        drivers = disturbed.drivers
    closed = time.monotonic()
    still_there = processes.settled(processes.without_agents, _PROCESSES_END)
    still_there += processes.settled(processes.agents, _AGENTS_END)
    last_process = time.monotonic() - closed
    processes.kill_all_below()
    return {
        "ended": ended,
        "kills": disturbed.made,
        "lost": sorted(expected.keys() - found.keys()),
        "twice": twice,
        "different": sorted(cell for cell in found if found[cell] != expected.get(cell)),
        "tables": sorted(
            name for name in expected_tables | made_tables if expected_tables.get(name) != made_tables.get(name)
        ),
        "placement groups": groups,
        "processes": [line[:200] for line in processes_of_jobs + still_there],
        **left,
        "starts": [driver.starts for driver in drivers],
        "astray": [text for driver in drivers for text in driver.astray],
        "own ends": dict(Counter(end for driver in drivers for end in driver.ends)),
        "seconds to the last process": round(last_process),
        "seconds": round(time.monotonic() - began),
    }


def _expected(root: Path, work: Path, run: Run) -> tuple[dict[str, str], dict[str, str]]:
    """Results and tables of the undisturbed study."""
    store, report = undisturbed(root, work, run.cells, run.workers)
    return results(store), tables(store, report)
