"""Measure in a separate process, so that the memory of one measurement does not count in the peak of the next."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def measure(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script in a new process, and return the JSON that it prints last.

    Raises:
        RuntimeError: the script failed. The message contains its output.
    """
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{script} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def peak_mib() -> float:
    """Peak resident MiB since this program began. Not by getrusage, which counts the parent before exec. Linux only."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Reset the peak to what is resident now (man 5 proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib() -> float:
    """Resident MiB now. Linux only."""
    return _status("VmRSS")


def _status(key: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) / 1024
