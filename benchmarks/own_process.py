"""Measure in a process of its own, so that what one measurement leaves behind is no part of the next one's peak."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def measure(script: str, *arguments: str) -> dict[str, Any]:
    """Run that script in a new process; what it prints last is JSON, which is returned.

    Raises:
        RuntimeError: it failed; the message is all that it said.
    """
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def peak_mib() -> float:
    """MiB resident at most since this program began; getrusage counts the parent's too, before exec. Linux only."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew at what is resident now (man 5 proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib() -> float:
    """MiB resident now. Linux only."""
    return _status("VmRSS")


def _status(key: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) / 1024
