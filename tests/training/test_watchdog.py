"""A process whose training hangs ends; one that works, waits or was stopped goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from studies import LIMIT

from scale_ray.training import watchdog
from scale_ray.training.watchdog import EXIT_STATUS, Watchdog

# A tick of 10 ms, so that a second of silence ends the process after some 10 ms of it.
_PROCESS = f"""
import os, sys, threading, time
sys.path[:0] = [{str(Path(watchdog.__file__).parents[2])!r}]
from scale_ray.training import watchdog
watchdog._TICK = 0.01

def told(problem):
    print(problem, flush=True)

with watchdog.Watchdog(float(sys.argv[1]), told) as dog:
    print("begun", flush=True)
    {{}}
print("came to its end", flush=True)
"""


def run(body: str, seconds: float) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", _PROCESS.format(body), str(seconds)]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_training_that_hangs_ends_its_process_and_says_where() -> None:
    # A lock that is held: like a collective, it never returns and no exception reaches it.
    ended = run("lock = threading.Lock(); dog.beat(); lock.acquire(); lock.acquire()", 0.05)
    assert ended.returncode == EXIT_STATUS
    assert ended.stdout.splitlines() == ["begun", "no sign of life for 0 s"]
    assert "lock.acquire" in ended.stderr or '"<string>", line' in ended.stderr  # the stack of the main thread


def test_signs_of_life_keep_it_alive() -> None:
    ended = run("[(dog.beat(), time.sleep(0.01)) for _ in range(100)]", 60)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["begun", "came to its end"])


def test_nothing_counts_before_the_first_sign_of_life_and_while_it_rests() -> None:
    ended = run("time.sleep(0.5); dog.beat(); dog.rest(); time.sleep(0.5)", 0.01)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["begun", "came to its end"])


def test_zero_is_never() -> None:
    ended = run("dog.beat(); time.sleep(0.5)", 0)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["begun", "came to its end"])


def test_a_store_that_hangs_too_does_not_keep_the_process() -> None:
    body = "dog._on_hang = lambda problem: time.sleep(1e6); dog.beat(); time.sleep(1e6)"
    assert run(body, 0.05).returncode == EXIT_STATUS


def test_a_stopped_process_has_not_hung() -> None:
    """Ctrl-Z, a suspended machine: only seconds in which the watchdog itself could run count."""
    line = [sys.executable, "-c", _PROCESS.format("dog.beat(); sys.stdin.read()"), "4"]  # 400 ticks
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        assert process.stdout.read() == "came to its end\n"
    assert process.returncode == 0


def test_waiting_for_somebody_else_does_not_count() -> None:
    """A trial that reports waits for its driver, which may be suspended."""
    ended = run("dog.beat(); dog.waiting(lambda value: time.sleep(0.5))({})", 0.1)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["begun", "came to its end"])


def test_it_is_quiet_after_its_block() -> None:
    with Watchdog(0.001, lambda problem: os._exit(1)) as dog:
        pass
    dog.beat()
