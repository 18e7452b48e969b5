"""The processes that a run has started, whoever their parents were."""

import ctypes
import os
import signal
import time
from collections.abc import Callable

from studies import descendants

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

# The process above this one that adopts orphans; 0 where there is none.
_above = 0

# The agents of each node of a Ray.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

# What Ray keeps running while no job is there: on each node, and one of a cluster that Ray Train starts and never ends.
_RAYS_OWN = (*_AGENTS, "ray::IDLE", "ray::SPILL", "ray::RESTORE", "ray::_AutoscalingCoordinatorActor")


def adopt_orphans() -> None:
    """Put a process above this one that becomes the parent of orphans (man 2 prctl) and collects how they ended.

    So none gets out of sight. And none stays a zombie: Ray's processes ask whether their raylet's pid exists, and a
    zombie's does. This call returns in a child of the process that made it, which ends as the child does.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        global _above
        _above = os.getppid()
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child too
    signal.signal(signal.SIGTERM, lambda *_: kill(child, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _started() -> list[tuple[int, str]]:
    """(pid, command line) of every process that this one has started, orphans too."""
    mine = os.getpid()
    return [(pid, line) for pid, line in descendants(_above or mine) if line and pid != mine]


def named(name: str) -> list[int]:
    """Sorted pids of all started processes whose command line contains the name."""
    return sorted(pid for pid, line in _started() if name in line)


def below(pid: int, *names: str) -> list[int]:
    """Sorted pids below `pid` whose command line contains one of the names; a zombie has no command line."""
    return sorted(child for child, line in descendants(pid) if line and any(name in line for name in names))


def trials() -> list[int]:
    """Actors of Ray Tune."""
    return named("ray::ImplicitFunc")


def heads(pid: int | None) -> list[int]:
    """The head processes of the Ray that a driver has started, once it has them all; empty for no driver."""
    found = [] if pid is None else [below(pid, name) for name in ("gcs_server", "/raylet/raylet")]
    return [each for pids in found for each in pids] if all(found) else []


def of_jobs() -> list[str]:
    """Command lines of the processes of Ray jobs, which a cluster has no reason to keep."""
    lines = [line.strip() for _, line in _started() if line.startswith("ray::")]
    return [line for line in lines if not line.startswith(_RAYS_OWN)]


def living() -> list[str]:
    """Command lines of all processes that this one has started."""
    return [line.strip() for _, line in _started()]


def agents() -> list[str]:
    """Command lines of the agents that each node of a Ray has."""
    return [line for line in living() if line.startswith(_AGENTS)]


def without_agents() -> list[str]:
    """Those of all other processes that this one has started."""
    return [line for line in living() if not line.startswith(_AGENTS)]


def kill(pid: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; nothing where the process has ended."""
    try:
        os.kill(pid, by)
    except ProcessLookupError:
        return


def kill_all_below() -> None:
    """End everything that this process has started."""
    for _ in range(5):  # what is killed may just have started something
        for pid, _ in _started():
            kill(pid)
        time.sleep(0.2)


def settled(look: Callable[[], list[str]], patience: float) -> list[str]:
    """What is still there when it stays for longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found
