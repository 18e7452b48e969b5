"""Ctrl-C, as a terminal sends it: to every process of the group."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from studies import LIMIT

import scale_ray

# A command that is in C code, which no Python handler can interrupt, with a process below it.
PROCESS = f"""
import hashlib, subprocess, sys
sys.path.insert(0, {str(Path(scale_ray.__file__).parents[1])!r})
from scale_ray.cli import interrupt

interrupt._SECONDS = float(sys.argv[1])
with interrupt.heeding_ctrl_c():
    interrupt.on_ctrl_c("nothing is lost")
    below = subprocess.Popen(["sleep", "100000"], start_new_session=True)
    print(below.pid, flush=True)
    if sys.argv[2] == "in C":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    else:
        import time
        time.sleep(100000)
"""


@contextmanager
def started(seconds: float, where: str = "in C") -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The process, and the one below it."""
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(seconds), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so would what these tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        yield process, psutil.Process(int(process.stdout.readline()))


def press(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C and return the line that says that the process is stopping."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "\n"
    return process.stderr.readline()


def is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        process.wait(LIMIT)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_it_says_at_once_that_it_is_stopping_and_ends_whatever_it_does() -> None:
    with started(0.5) as (process, below):
        assert press(process) == "stopping: nothing is lost (Ctrl-C again ends it at once)\n"
        assert process.communicate(timeout=LIMIT) == ("", "")
        assert process.returncode == 130
        assert is_gone(below)


def test_a_second_one_ends_it_at_once() -> None:
    with started(1e6) as (process, below):
        assert press(process).startswith("stopping: ")
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert is_gone(below)


def test_where_python_can_raise_it_the_command_ends_by_itself() -> None:
    with started(1e6, "in Python") as (process, below):
        assert press(process).startswith("stopping: ")
        assert process.communicate(timeout=LIMIT) == ("", "")  # no traceback
        assert process.returncode == 130
        assert is_gone(below)


@pytest.mark.parametrize("arguments", [["fields"], ["--version"]])
def test_a_command_that_nobody_interrupts_ends_as_before(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scale_ray.cli", *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
