"""Memory that a running stage costs on a cluster: on the head, and on the worker node beside the trial's own processes.

    python benchmarks/stage_memory.py [--stages 3] [--workers 1] [-- OPTIONS OF ablate]

A head and one worker node on this machine run a study of long trainings (digits, lenet). Once all of them train, the
private memory of every process is added up by node. This is done with one stage and with `--stages`: the difference,
divided by the number of stages more, is what one costs. The workers' own memory is shown and not counted.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

from processes import name_of, private_mb, processes
from ray.cluster_utils import Cluster
from results import leave

_OBJECT_STORE_BYTES = 80 * 2**20
_PATIENCE = 1200.0  # seconds until all stages must train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=3, help="stages of the second measurement")
    parser.add_argument("--workers", type=int, default=1, help="workers of a trial")
    parser.add_argument("--name", default="stage_memory", help="of the result")
    parser.add_argument("options", nargs="*", help="further options of ablate, after --")
    asked = parser.parse_args()
    few, many = (_measure(stages, asked.workers, asked.options) for stages in (1, asked.stages))
    rows = _rows(few, many, asked.stages - 1)
    notes = [
        f"private MB per running stage of {asked.workers} workers: ({asked.stages} stages - 1 stage) / "
        f"{asked.stages - 1}; options: {' '.join(asked.options) or 'none'}",
        "the trial's own processes are not counted in the sums",
    ]
    print(leave(asked.name, "Memory of a running stage on a cluster", rows, notes))


def _rows(few: dict[tuple[str, str], float], many: dict[tuple[str, str], float], more: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"node": node, "process": process, "MB per stage": round((many[node, process] - few[node, process]) / more, 1)}
        for node, process in sorted(many.keys() | few.keys())
    ]
    for node in ("head", "worker node"):
        counted = [float(row["MB per stage"]) for row in rows if row["node"] == node and row["process"] != _TRIAL]
        rows.append({"node": node, "process": "sum", "MB per stage": round(sum(counted), 1)})
    return rows


_TRIAL = "the trial itself"


def _measure(stages: int, workers: int, options: list[str]) -> dict[tuple[str, str], float]:
    """(node, process) -> private MB of all such processes while so many stages train."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder, tempfile.TemporaryDirectory() as store:
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": True,
                "dashboard_port": 0,
                "temp_dir": folder,
                "object_store_memory": _OBJECT_STORE_BYTES,
            },
        )
        try:
            made.add_node(num_cpus=stages * workers, object_store_memory=_OBJECT_STORE_BYTES)
            made.wait_for_nodes()
            study = subprocess.Popen(
                [
                    *(sys.executable, "-m", "scale_ray.cli", "ablate", "--store", store, "--address", made.address),
                    *("--losses", "ce+ssl", "--pairs", "mnist:mnistm", "--seeds", str(stages), "--steps", "1000000"),
                    *("--set", "evaluate_every=20", "--checkpoint-every", "20"),
                    *(("--workers-per-trial", str(workers)) if workers > 1 else ()),
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                _await(study, stages)
                return _by_process(made, study.pid)
            finally:
                study.send_signal(signal.SIGKILL)
                study.communicate()
        finally:
            made.shutdown()


def _await(study: "subprocess.Popen[str]", stages: int) -> None:
    """Wait until every stage has reported an accuracy."""
    assert study.stdout is not None
    deadline, seen = time.monotonic() + _PATIENCE, set()
    for line in study.stdout:
        if ": step " in line:
            seen.add(line.partition(": step ")[0])
        if len(seen) == stages:
            return
        assert time.monotonic() < deadline, line
    raise AssertionError("the study ended")


def _by_process(made: Cluster, study: int) -> dict[tuple[str, str], float]:
    raylets = {made.head_node.all_processes["raylet"][0].process.pid: "head"}
    raylets |= {node.all_processes["raylet"][0].process.pid: "worker node" for node in made.worker_nodes}
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for pid, parent in processes():
        if parent not in raylets:
            continue
        name = name_of(pid).removeprefix("ray::")
        if not name.startswith("IDLE"):
            name = name.partition(".")[0]
            sums[raylets[parent], name] += private_mb(pid)
    for kind in ("raylet", "gcs_server"):
        for process in made.head_node.all_processes.get(kind, []):
            sums["head", kind] += private_mb(process.process.pid)
    sums["head", "the study's process"] = private_mb(study)
    worker = "RayTrainWorker" if ("worker node", "RayTrainWorker") in sums else "ImplicitFunc"
    sums["worker node", _TRIAL] = sums.pop(("worker node", worker))
    return sums


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
