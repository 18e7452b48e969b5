"""Leases: one holder per key, even if drivers die, pause or lose the store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from scale_ray.store import files as files_module
from scale_ray.store import leases as leases_module
from scale_ray.store import liveness as liveness_module
from scale_ray.store.files import Files, StoreError
from scale_ray.store.leases import Driver
from scale_ray.store.liveness import Announcement, Others, driver_file

BEAT, EXPIRY = 0.05, 1.0
TICK = 0.1  # seconds of the made-up clock
PATIENCE = 900  # ends a test that hangs; a busy machine may need minutes

linux = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux's /proc")

# Acquires one key, prints that, and lives until it is killed or told to end. `elsewhere`: as if on another machine.
HOLDER = """
import sys
from scale_ray.store import liveness
from scale_ray.store.files import Files
from scale_ray.store.leases import Driver
if {elsewhere}:
    liveness._boot = lambda: "another boot"
with Driver(Files({location!r}), beat={beat}, expiry={expiry}) as driver:
    print(driver.acquire("key"), driver.id, flush=True)
    sys.stdin.readline()
"""

# Acquires and releases one key again and again. With the key it holds a file that only one process can create.
CONTENDER = """
import os, sys, time
from pathlib import Path
from scale_ray.store.files import Files
from scale_ray.store.leases import Driver
proof = Path(sys.argv[1])
held = 0
with Driver(Files({location!r}), beat=0.5, expiry=30) as driver:
    end = time.time() + {seconds}
    while time.time() < end or held < 2:
        if driver.acquire("key"):
            os.close(os.open(proof, os.O_CREAT | os.O_EXCL))
            time.sleep(0.005)
            proof.unlink()
            driver.release("key")
            held += 1
print(held)
"""


@pytest.fixture
def files(location: str) -> Files:
    found = Files(location, create=True)
    found.make_folders(["drivers", "leases"])
    return found


class Clock:
    """Stands in for the clocks of this process's drivers. A busy machine cannot make one of them look dead."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def tick(self, files: Files, *alive: str) -> None:
        """Let time pass, after each of the drivers with these ids has sent a heartbeat."""
        before = {driver_id: beats(files, driver_id) for driver_id in alive}
        for driver_id in alive:
            within(lambda driver_id=driver_id: beats(files, driver_id) > before[driver_id])
        self.now += TICK


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(liveness_module, "time", made)
    monkeypatch.setattr(leases_module, "_uptime", made.monotonic)
    return made


def beats(files: Files, driver_id: str) -> int:
    return json.loads(files.read(driver_file(driver_id)) or b"")["counter"]


def driver(files: Files, beat: float = BEAT, expiry: float = EXPIRY) -> Driver:
    return Driver(Files(files.location), beat=beat, expiry=expiry)


@contextmanager
def holder(files: Files, *, elsewhere: bool = False, expiry: float = 60) -> "Iterator[subprocess.Popen[str]]":
    """A process whose driver holds the key. Its attribute `driver_id` is the driver's id."""
    code = HOLDER.format(location=files.location, elsewhere=elsewhere, beat=BEAT, expiry=expiry)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            acquired, process.driver_id = process.stdout.readline().split()  # type: ignore[attr-defined]
            assert acquired == "True"
            yield process
        finally:
            process.kill()


def within(what: Callable[[], Any]) -> float:
    """Seconds until the condition holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < PATIENCE, "not in time"
        time.sleep(0.02)
    return time.monotonic() - began


def dead_driver(files: Files, *keys: str, **changes: Any) -> str:
    """A driver of another machine that never sends a heartbeat, and its leases."""
    values = {
        "id": "d" * 32,
        "counter": 7,
        "host": "elsewhere",
        "pid": 1,
        "since": "2026-03-01T00:00:00+00:00",
        "boot": "another",
        "pid_namespace": "pid:[1]",
        "process_start": "1",
    } | changes
    files.write(driver_file(values["id"]), Announcement(**values).model_dump_json().encode())
    for key in keys:
        files.write(f"leases/{key}.1", values["id"].encode())
    return values["id"]


# Two live drivers


def test_one_driver_has_a_key_until_it_gives_it_back(files: Files, clock: Clock) -> None:
    with driver(files) as one, driver(files) as other:
        assert one.acquire("key")
        assert not one.acquire("key")
        assert not other.acquire("key")
        assert other.acquire("another")
        assert {key: found.id for key, found in one.holders().items()} == {"key": one.id, "another": other.id}
        assert one.holder("nobody's") is None
        other.release("key")  # not its own
        assert not other.acquire("key")
        one.release("key")
        assert other.acquire("key")
        assert not one.acquire("key")
    assert files.names("drivers") == files.names("leases") == []


def test_a_driver_says_who_it_is(files: Files, clock: Clock) -> None:
    with driver(files) as one, driver(files) as other:
        within(one.others)
        (found,) = one.others()
        assert (found.id, found.pid, found.host) == (other.id, os.getpid(), os.uname().nodename)
        first = beats(files, other.id)
        within(lambda: beats(files, other.id) >= first + 3)
    assert files.names("drivers") == []


def test_a_driver_that_ends_gives_its_keys_back(files: Files, clock: Clock) -> None:
    with driver(files) as other:
        with driver(files) as one:
            assert one.acquire("key")
        assert other.acquire("key")


def test_live_drivers_outlive_the_expiry(files: Files, clock: Clock) -> None:
    with driver(files) as one, driver(files) as other:
        assert one.acquire("key")
        while clock.now < 2.5 * EXPIRY:
            assert not other.acquire("key")
            clock.tick(files, one.id, other.id)
        assert [found.id for found in other.others()] == [one.id]


# Dead drivers


def test_silence_for_the_expiry_is_death(files: Files, clock: Clock) -> None:
    dead_driver(files, "key", "another")
    with driver(files) as one:
        began = clock.now
        assert not one.acquire("key")
        assert len(one.others()) == 1
        while not one.acquire("key"):
            clock.tick(files, one.id)
        assert clock.now - began >= EXPIRY * 0.99
        assert one.others() == []
        assert files.names("leases") == ["another.1", "key.2"]
        one.release("key")
    assert files.names("drivers") == files.names("leases") == []  # removed at the end


@linux
@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 - 1},  # no such process
        {"pid": os.getpid(), "process_start": "1"},  # another process has its pid now
    ],
    ids=["gone", "another's pid"],
)
def test_a_process_seen_to_be_gone_is_dead_at_once(files: Files, changes: dict[str, Any]) -> None:
    here = liveness_module.announcement("x")
    machine = {"host": here.host, "boot": here.boot, "pid_namespace": here.pid_namespace}
    dead_driver(files, "key", **(machine | {"process_start": "5"} | changes))
    with driver(files, beat=BEAT, expiry=3600) as one:
        assert files.names("leases") == []  # removed at the start
        assert files.names("drivers") == [f"{one.id}.json"]
        assert one.acquire("key")


@linux
@pytest.mark.parametrize("field", ["host", "boot", "pid_namespace"])
def test_only_where_it_could_be_seen(files: Files, field: str) -> None:
    here = liveness_module.announcement("x")
    machine = {"host": here.host, "boot": here.boot, "pid_namespace": here.pid_namespace, "process_start": "5"}
    dead_driver(files, "key", **(machine | {"pid": 2**22 - 1, field: "other"}))
    with driver(files, expiry=3600) as one:
        assert not one.acquire("key")


def test_without_proc_only_silence_counts(files: Files) -> None:
    dead_driver(files, "key", pid=2**22 - 1, boot=None, pid_namespace=None, process_start=None)
    with driver(files, expiry=3600) as one:
        assert not one.acquire("key")


@linux
def test_a_killed_process_is_dead_at_once_here(files: Files) -> None:
    with holder(files, expiry=3600) as process, driver(files, expiry=3600) as one:
        assert not one.acquire("key")
        process.kill()  # nobody waits for it, so it is a zombie
        within(lambda: one.acquire("key"))
        assert one.others() == []


def test_a_killed_process_elsewhere_is_dead_after_the_expiry(files: Files, clock: Clock) -> None:
    with holder(files, elsewhere=True) as process, driver(files) as one:
        while clock.now < 2 * EXPIRY:
            assert not one.acquire("key")
            clock.tick(files, one.id, process.driver_id)
        process.kill()
        began = clock.now
        while not one.acquire("key"):
            clock.tick(files, one.id)
        assert clock.now - began > EXPIRY / 2


def test_of_three_takers_one_wins(files: Files, clock: Clock) -> None:
    dead_driver(files, "key")
    with driver(files) as one, driver(files) as two, driver(files) as three:
        takers = [one, two, three]
        while any(found.host == "elsewhere" for taker in takers for found in taker.others()):
            clock.tick(files, one.id, two.id, three.id)
        barrier = threading.Barrier(3)

        def take(taker: Driver) -> bool:
            barrier.wait()
            return taker.acquire("key")

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(take, takers)).count(True) == 1


def test_a_slow_taker_gives_way_to_a_newer_holder(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw only a dead lease. Before it acts, another driver takes the key over and releases it; a third holds it."""
    with driver(files, expiry=3600) as slow, driver(files, expiry=3600) as third:
        views = [{"leases/key.1": "d" * 32}]
        leases_of = slow._leases_of

        def leases(key: str) -> dict[str, str]:
            return views.pop(0) if views else leases_of(key)

        assert third.acquire("key")
        assert files.names("leases") == ["key.1"]
        monkeypatch.setattr(slow, "_leases_of", leases)
        assert not slow.acquire("key")
        assert files.names("leases") == ["key.1"]
        assert files.read("leases/key.1") == third.id.encode()


# Paused and cut off


@linux
def test_a_paused_driver_loses_its_key_and_takes_nothing_back(files: Files, clock: Clock) -> None:
    with holder(files, elsewhere=True) as process, driver(files) as one:
        assert not one.acquire("key")
        process.send_signal(signal.SIGSTOP)
        while not one.acquire("key"):
            clock.tick(files, one.id)
        process.send_signal(signal.SIGCONT)
        within(lambda: [found.id for found in one.others()] == [process.driver_id])  # it is alive again
        assert one.holder("key").id == one.id
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.flush()
        within(lambda: process.poll() == 0)
        assert one.holder("key").id == one.id  # its end did not release the other's key
        assert files.names("leases") == ["key.2"]


def test_a_driver_that_cannot_beat_takes_nothing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.3)
    files = Files(s3.new_url(), create=True)
    with driver(files) as one:
        assert one.alive_for_others()
        with s3.failing():
            within(lambda: not one.alive_for_others())
            assert not one.acquire("key")  # without a request: the store could not answer
        within(one.alive_for_others)
        assert one.acquire("key")


def test_one_reading_after_a_long_gap_declares_nobody_dead(files: Files, clock: Clock) -> None:
    """The observer could not read the store or was paused, and the same may be true of the driver."""
    silent = dead_driver(files)
    others = Others(files, "observer", refresh_seconds=0, expiry=EXPIRY)
    others.refresh()
    clock.now += 1.5 * EXPIRY
    others.refresh()
    assert others.find(silent) is not None
    assert others.dead() == []
    while not others.dead():
        clock.now += TICK
    assert others.find(silent) is None
    assert others.alive() == []
    dead_driver(files, counter=8)  # it is alive again
    assert others.find(silent) is not None


def test_a_lease_that_became_anothers_is_not_removed(files: Files) -> None:
    """After a pause: the key was taken over, released, and acquired again under the first file name."""
    with driver(files, expiry=60) as one:
        assert one.acquire("key")
        files.write("leases/key.1", b"another's")
        one.release("key")
        assert files.read("leases/key.1") == b"another's"


@pytest.mark.slow
def test_an_outage_longer_than_the_expiry_declares_nobody_dead(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver could send or read heartbeats. The first reading afterwards must not declare all of them dead."""
    monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.2)
    files = Files(s3.new_url(), create=True)
    with driver(files) as one, driver(files) as other:
        assert one.acquire("key")
        with s3.failing():
            time.sleep(3 * EXPIRY)
        for _ in range(20):
            assert not other.acquire("key")
            time.sleep(0.1)
        assert other.alive_for_others()
        assert [found.id for found in other.others()] == [one.id]


def test_a_key_whose_return_failed_can_be_taken_again(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(s3.new_url(), create=True)
    with driver(files, expiry=60) as one, driver(files, expiry=60) as other:
        assert one.acquire("key")
        monkeypatch.setattr(files_module, "RETRY_SECONDS", 0.1)
        with s3.failing(), pytest.raises(StoreError):
            one.release("key")
        assert not other.acquire("key")
        assert one.acquire("key")
        one.release("key")
        assert other.acquire("key")


def test_ending_without_the_store_is_quick(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(s3.new_url(), create=True)
    with ExitStack() as stack:
        one = driver(files)
        with one:
            assert one.acquire("key")
            stack.enter_context(s3.failing())
            within(lambda: not one.alive_for_others())
            began = time.monotonic()
        assert time.monotonic() - began < files_module.RETRY_SECONDS / 2


def test_a_broken_announcement_is_named(files: Files) -> None:
    files.write("drivers/x.json", b"{}")
    with pytest.raises(
        StoreError, match=f"^{files.location}/drivers/x.json: not a driver's announcement .+: delete it"
    ):
        driver(files).__enter__()


# Many at once


def test_never_two_at_the_same_time(files: Files, tmp_path: Path) -> None:
    """Four processes acquire one key in turn. Two that held it at once would collide in a file made with O_EXCL."""
    code = CONTENDER.format(location=files.location, seconds=2)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "proof"], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    held = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(held) >= 5


def test_the_drivers_are_read_once_whatever_the_number_of_keys(s3: S3Server) -> None:
    files = Files(s3.new_url(), create=True)
    with driver(files, beat=30, expiry=60) as one, driver(files, beat=30, expiry=60) as other:
        for number in range(10):
            other.acquire(f"theirs-{number}")
        assert not one.acquire("theirs-0")
        before = s3.requests
        for number in range(10):
            assert not one.acquire(f"theirs-{number}")
        assert s3.requests == before + 10 * 2  # the leases' names, the key's own lease; no announcement
