"""The processes that a run has started: all below this one, whoever their parents were."""

import ctypes
import os
import signal
import time
from collections.abc import Callable

from studies import descendants

_PR_SET_CHILD_SUBREAPER = 36

# What Ray keeps running while no job is there: on each node, and one of a cluster that Ray Train starts and never ends.
_RAYS_OWN = (
    *("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL", "ray::RESTORE"),
    "ray::_AutoscalingCoordinatorActor",
)


def adopt_orphans() -> None:
    """Become the parent of processes below this one whose own parents end (man 2 prctl): none gets out of sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def below(pid: int, *names: str) -> list[int]:
    """Sorted pids below `pid` whose command line contains one of the names; a zombie has no command line."""
    return sorted(child for child, line in descendants(pid) if line and any(name in line for name in names))


def trials() -> list[int]:
    """Actors of Ray Tune."""
    return below(os.getpid(), "ray::ImplicitFunc")


def heads(pid: int | None) -> list[int]:
    """The head processes of the Ray that a driver has started, once it has them all; empty for no driver."""
    found = [] if pid is None else [below(pid, name) for name in ("gcs_server", "/raylet/raylet")]
    return [each for pids in found for each in pids] if all(found) else []


def of_jobs() -> list[str]:
    """Command lines of the processes of Ray jobs, which a cluster has no reason to keep."""
    lines = [line.strip() for _, line in descendants(os.getpid()) if line.startswith("ray::")]
    return [line for line in lines if not line.startswith(_RAYS_OWN)]


def living() -> list[str]:
    """Command lines of all processes below this one."""
    return [line.strip() for _, line in descendants(os.getpid()) if line]


def kill(pid: int) -> None:
    """SIGKILL; nothing where the process has ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def kill_all_below() -> None:
    """End everything that this process has started."""
    for _ in range(5):  # what is killed may just have started something
        for pid, _ in list(descendants(os.getpid())):
            kill(pid)
        time.sleep(0.2)


def settled(look: Callable[[], list[str]], patience: float) -> list[str]:
    """What is still there when it stays for longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found
