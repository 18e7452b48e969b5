"""Leases: one holder per key, even if drivers die, pause or lose the store."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_server import SLOW_ON_S3, S3Server

from scale_ray.store import files as files_module
from scale_ray.store import lifeline as lifeline_module
from scale_ray.store.files import Files, StoreError
from scale_ray.store.leases import Driver
from scale_ray.store.lifeline import Lifeline, is_cut
from scale_ray.store.liveness import Announcement, Others, driver_file

BEAT, EXPIRY = 0.05, 1.0
TICK = 0.1  # seconds of the made-up clock
PATIENCE = 900  # ends a test that hangs; a busy machine may need minutes

linux = pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="needs Linux's /proc")

# Acquires one key, prints that, and lives until it is killed or told to end. `elsewhere`: as if on another machine.
# Once the file exists that it is given, its clock is later by the expiry: a pause that long has passed. A handler of
# SIGCONT will not do: Python runs it in the main thread, which may sleep in a system call until its next input.
HOLDER = """
import os, sys
from scale_ray.store import lifeline
from scale_ray.store.files import Files
from scale_ray.store.leases import Driver
from scale_ray.store.liveness import uptime
if {elsewhere}:
    lifeline._boot = lambda: "another boot"
clock = lambda: uptime() + {expiry} * os.path.exists(sys.argv[1])
with Driver(Files({location!r}), beat={beat}, expiry={expiry}, clock=clock) as driver:
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
    """The clock of this process's drivers. A busy machine cannot make one of them look dead."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def tick(self, files: Files, *alive: Driver | str) -> None:
        """Let time pass, after each of these drivers has sent a heartbeat; those of other processes by their ids."""
        ids = [one if isinstance(one, str) else one.id for one in alive]
        before = {driver_id: beats(files, driver_id) for driver_id in ids}
        for driver_id in ids:
            within(lambda driver_id=driver_id: beats(files, driver_id) > before[driver_id])
        self.now += TICK


@pytest.fixture
def clock() -> Clock:
    return Clock()


def beats(files: Files, driver_id: str) -> int:
    return json.loads(files.read(driver_file(driver_id)) or b"")["counter"]


def driver(files: Files, clock: Clock | None = None, *, beat: float = BEAT, expiry: float = EXPIRY) -> Driver:
    return Driver(Files(files.location), beat=beat, expiry=expiry, **({"clock": clock} if clock else {}))


def leases(files: Files) -> dict[str, list[str]]:
    """key -> ids of the drivers that have a lease of it."""
    found: dict[str, list[str]] = {}
    for name in files.names("leases"):
        key, _, driver_id = name.split(".")
        found.setdefault(key, []).append(driver_id)
    return found


@contextmanager
def holder(files: Files, *, elsewhere: bool = False, expiry: float = 60) -> "Iterator[subprocess.Popen[str]]":
    """A process whose driver holds the key.

    Attributes: `driver_id`, the driver's id; `paused`, the file that makes its clock later by the expiry.
    """
    code = HOLDER.format(location=files.location, elsewhere=elsewhere, beat=BEAT, expiry=expiry)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paused = Path(folder) / "paused"
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", code, str(paused)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        process.paused = paused  # type: ignore[attr-defined]
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


def dead_driver(files: Files, *keys: str, lifeline: str | None = None, counter: int = 7) -> str:
    """A driver of another machine that never sends a heartbeat, and its leases."""
    driver_id = "d" * 32
    announced = Announcement(
        counter=counter, host="elsewhere", pid=1, since="2026-03-01T00:00:00+00:00", lifeline=lifeline
    )
    files.write(driver_file(driver_id), announced.model_dump_json().encode())
    for key in keys:
        files.write(f"leases/{key}.1.{driver_id}", b"")
    return driver_id


# Two live drivers


def test_one_driver_has_a_key_until_it_gives_it_back(files: Files, clock: Clock) -> None:
    with driver(files, clock) as one, driver(files, clock) as other:
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
    with driver(files, clock) as one, driver(files, clock) as other:
        within(one.others)
        (found,) = one.others()
        assert (found.id, found.pid, found.host) == (other.id, os.getpid(), os.uname().nodename)
        first = beats(files, other.id)
        within(lambda: beats(files, other.id) >= first + 3)
    assert files.names("drivers") == []


def test_a_driver_that_ends_gives_its_keys_back(files: Files, clock: Clock) -> None:
    with driver(files, clock) as other:
        with driver(files, clock) as one:
            assert one.acquire("key")
        assert other.acquire("key")


@SLOW_ON_S3
def test_live_drivers_outlive_the_expiry(files: Files, clock: Clock) -> None:
    with driver(files, clock) as one, driver(files, clock) as other:
        assert one.acquire("key")
        while clock.now < 2.5 * EXPIRY:
            assert not other.acquire("key")
            clock.tick(files, one, other)
        assert [found.id for found in other.others()] == [one.id]


# Dead drivers


@SLOW_ON_S3
def test_silence_for_the_expiry_is_death(files: Files, clock: Clock) -> None:
    dead_driver(files, "key", "another")
    with driver(files, clock) as one:
        began = clock.now
        assert not one.acquire("key")
        assert len(one.others()) == 1
        while not one.acquire("key"):
            clock.tick(files, one)
        assert clock.now - began >= EXPIRY * 0.99
        assert one.others() == []
        assert leases(files) == {"another": ["d" * 32], "key": [one.id]}
        one.release("key")
    assert files.names("drivers") == files.names("leases") == []  # removed at the end


@SLOW_ON_S3
def test_a_sign_of_life_is_waited_for_until_the_others_are_dead(files: Files, clock: Clock) -> None:
    dead_driver(files)
    with driver(files, clock) as one, ThreadPoolExecutor(1) as pool:
        assert len(one.others()) == 1
        heard = pool.submit(one.heard)
        while not heard.done():
            clock.tick(files, one)
        assert heard.result() == []
        with driver(files, clock) as other:
            assert [found.id for found in one.heard()] == [other.id]


@SLOW_ON_S3
def test_a_driver_that_changes_what_nobody_can_read_is_waited_for_no_longer_than_that(
    files: Files, clock: Clock
) -> None:
    with driver(files, clock) as one, ThreadPoolExecutor(1) as pool:
        files.write(driver_file("e" * 32), b"0")
        heard, began = pool.submit(one.heard), clock.now
        while not heard.done():
            files.write(driver_file("e" * 32), str(clock.now).encode())
            clock.tick(files, one)
        assert [found.id for found in heard.result()] == ["e" * 32]
        assert clock.now - began >= EXPIRY


@linux
def test_a_killed_process_is_dead_at_once_here(files: Files) -> None:
    with holder(files, expiry=3600) as process, driver(files, expiry=3600) as one:
        assert not one.acquire("key")
        process.kill()  # nobody waits for it, so it is a zombie
        within(lambda: one.acquire("key"))
        assert one.others() == []
        one.look()
        assert files.names("drivers") == [f"{one.id}.json"]


@linux
def test_a_driver_whose_traces_were_just_removed_is_no_other_driver(files: Files) -> None:
    """A new driver looks as it begins: the file that proves the death goes with the announcement."""
    with holder(files, expiry=3600) as process:
        process.kill()
        process.wait()
    with driver(files, expiry=3600) as one:
        assert files.names("drivers") == [f"{one.id}.json"]
        assert one.others() == []
        assert one.alone


@linux
def test_a_driver_is_seen_to_be_gone_by_its_own_unlocked_file_alone(tmp_path: Path, monkeypatch: Any) -> None:
    """Not by a process id, which another machine of the same name may not have; nor by a copy of the file."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = Lifeline("a" * 32)
    (path,) = tmp_path.iterdir()
    assert not is_cut("a" * 32, line.identity)  # it lives
    assert not is_cut("a" * 32, None)
    os.close(line._handle)  # as the kernel does when a process ends
    assert is_cut("a" * 32, line.identity)
    assert is_cut("a" * 32, line.identity)  # looking changed nothing
    assert not is_cut("b" * 32, line.identity)  # it has no file here
    content = tmp_path / "other"
    path.rename(content)
    path.write_bytes(content.read_bytes())
    assert not is_cut("a" * 32, line.identity)  # a copy
    content.rename(path)
    assert is_cut("a" * 32, line.identity)
    monkeypatch.setattr(lifeline_module, "_boot", lambda: "another boot")
    assert not is_cut("a" * 32, line.identity)


@linux
def test_a_clone_of_the_machine_waits_for_the_expiry(files: Files, clock: Clock, tmp_path: Path) -> None:
    """Boot, host and process ids are the same in clones; the driver's file is not there."""
    driver_id = dead_driver(files, "key", lifeline=f"{lifeline_module._boot()} 1 2")
    with driver(files, clock) as one:
        assert not one.acquire("key")
        assert [found.id for found in one.others()] == [driver_id]


def test_without_a_place_for_its_file_a_driver_works_as_well(
    files: Files, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with driver(files, clock) as one, driver(files, clock) as other:
        assert one.acquire("key")
        assert not other.acquire("key")
        assert json.loads(files.read(driver_file(one.id)) or b"")["lifeline"] is None


@SLOW_ON_S3
def test_a_killed_process_elsewhere_is_dead_after_the_expiry(files: Files, clock: Clock) -> None:
    with holder(files, elsewhere=True) as process, driver(files, clock) as one:
        while clock.now < 2 * EXPIRY:
            assert not one.acquire("key")
            clock.tick(files, one, process.driver_id)
        process.kill()
        began = clock.now
        while not one.acquire("key"):
            clock.tick(files, one)
        assert clock.now - began > EXPIRY / 2


@SLOW_ON_S3
def test_of_three_takers_one_wins(files: Files, clock: Clock) -> None:
    dead_driver(files, "key")
    with driver(files, clock) as one, driver(files, clock) as two, driver(files, clock) as three:
        takers = [one, two, three]
        while any(found.host == "elsewhere" for taker in takers for found in taker.others()):
            clock.tick(files, one, two, three)
        barrier = threading.Barrier(3)

        def take(taker: Driver) -> bool:
            barrier.wait()
            while not any(one.leased("key") for one in takers):
                if taker.acquire("key"):
                    return True
                time.sleep(random.uniform(0, 0.1))
            return False

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(take, takers)).count(True) == 1


def test_two_that_want_a_key_at_the_same_time_both_give_way_or_one_does(files: Files, clock: Clock) -> None:
    """Whoever lists second sees the other: here the lease is written between the first one's writing and listing."""
    with driver(files, clock) as one, driver(files, clock) as other:
        (mine,) = one._write_leases(["key"]).values()
        assert not other.acquire("key")
        assert leases(files) == {"key": [one.id]}  # it took its own back
        assert one._uncontested({"key": mine}) == {"key"}


def test_all_of_several_keys_or_none(files: Files, clock: Clock) -> None:
    with driver(files, clock) as one, driver(files, clock) as other:
        assert one.acquire("b")
        assert not other.acquire("a", "b", "c")
        assert leases(files) == {"b": [one.id]}
        one.release("b")
        assert other.acquire("a", "b", "c")
        assert other.leased("a", "b", "c")
        assert other.elsewhere("a") is False
        other.release("a", "b", "c")
        assert leases(files) == {}


# Paused and cut off


@linux
@SLOW_ON_S3
def test_a_paused_driver_loses_its_key_and_takes_nothing_back(files: Files, clock: Clock) -> None:
    with holder(files, elsewhere=True) as process, driver(files, clock) as one:
        assert not one.acquire("key")
        process.send_signal(signal.SIGSTOP)
        while not one.acquire("key"):
            clock.tick(files, one)
        one.look()
        assert files.names("drivers") == [f"{one.id}.json"]
        process.paused.touch()  # type: ignore[attr-defined]
        process.send_signal(signal.SIGCONT)
        # It is alive again, under another id. A heartbeat that was on its way may still come under the old one.
        within(lambda: [found.pid for found in one.others() if found.id != process.driver_id] == [process.pid])
        assert one.holds("key")
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.flush()
        within(lambda: process.poll() == 0)
        assert one.holds("key")  # its end did not release the other's key
        assert leases(files) == {"key": [one.id]}


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
    others = Others(files, refresh_seconds=0, expiry=EXPIRY, clock=clock)
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


def test_a_driver_that_has_resigned_announces_itself_no_more(files: Files, clock: Clock) -> None:
    """Its heartbeat may be on its way while the process is told to end."""
    leaving, other = driver(files, clock), driver(files, clock)
    for each in leaving, other:
        each.beat()
    assert leaving.acquire("key")
    leaving.resign()
    leaving.beat()
    assert files.names("drivers") == [f"{other.id}.json"]
    assert other.acquire("key")


def test_after_a_long_silence_a_driver_keeps_what_nobody_has_taken(files: Files, clock: Clock) -> None:
    one, other = driver(files, clock, beat=1, expiry=6), driver(files, clock, beat=1, expiry=6)
    for each in one, other:
        each.beat()
    assert one.acquire("a", "b")
    first = one.id
    while not other.acquire("b"):
        other.beat()
        clock.now += 1
    for key in ("a", "b"):
        assert not one.leased(key)  # it notices by its clock, before it has sent or read anything
        assert not one.holds(key)
    one.beat()
    assert one.id != first
    assert [one.leased("a"), one.holds("a"), one.leased("b"), one.holds("b")] == [True, True, False, False]
    assert leases(files) == {"a": [one.id], "b": [other.id]}
    assert files.names("drivers") == sorted([f"{one.id}.json", f"{other.id}.json"])
    one.release("a", "b")
    assert other.holds("b")


def test_a_driver_whose_clock_stood_still_learns_it_from_the_store(files: Files, clock: Clock) -> None:
    """As in a virtual machine that its host has stopped."""
    own = Clock()
    one, other = driver(files, own, beat=1, expiry=6), driver(files, clock, beat=1, expiry=6)
    for each in one, other:
        each.beat()
    assert one.acquire("key")
    while not other.acquire("key"):
        other.beat()
        clock.now += 1
    assert one.leased("key")
    assert not one.holds("key")
    other.look()
    one.beat()
    assert not one.leased("key")


class SlowFiles(Files):
    """Every writing takes that many seconds of the clock, of which one half before its effect, and reading likewise."""

    clock: Clock
    seconds = 0.0

    def write(self, name: str, content: bytes) -> None:
        self.clock.now += self.seconds / 2
        super().write(name, content)
        self.clock.now += self.seconds / 2

    def read_many(self, names: Any) -> Any:
        found = list(super().read_many(names))
        self.clock.now += self.seconds
        return found


def test_a_heartbeat_counts_from_its_begin_and_not_if_it_took_too_long(files: Files, clock: Clock) -> None:
    slow = SlowFiles(files.location)
    slow.clock = clock
    one = Driver(slow, beat=1, expiry=6, clock=clock)
    one.beat()
    slow.seconds = 3.0
    one.beat()  # from 0 to 3
    slow.seconds = 0.0
    first = one.id
    clock.now = 4.9
    assert one.alive_for_others()
    clock.now = 5.1
    assert not one.alive_for_others()
    one.beat()
    assert one.id != first
    second, slow.seconds = one.id, 5.5
    one.beat()
    assert not one.alive_for_others()  # others may have counted it as dead before its heartbeat arrived
    slow.seconds = 0.0
    one.beat()
    assert one.id != second


def test_a_slow_reading_makes_nobody_look_silent(files: Files, clock: Clock) -> None:
    slow = SlowFiles(files.location)
    slow.clock = clock
    silent = dead_driver(files)
    others = Others(slow, refresh_seconds=0, expiry=6, clock=clock)
    slow.seconds = 100.0
    for _ in range(20):
        others.refresh()
    assert others._seen[silent].silence == 0  # nothing is known of the time while it was read


def test_no_name_of_a_lease_is_written_twice(files: Files, clock: Clock) -> None:
    """So a removal that arrives late meets no lease that came after it."""
    with driver(files, clock) as one:
        seen = set()
        for _ in range(3):
            assert one.acquire("key")
            seen.update(files.names("leases"))
            one.release("key")
        assert len(seen) == 3


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
        within(lambda: [found.id for found in other.others()] == [one.id])
        assert one.holds("key")


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


# Files that no driver wrote


def test_a_damaged_announcement_is_that_of_a_silent_driver(tmp_path: Path, clock: Clock) -> None:
    files = Files(tmp_path)
    files.make_folders(["drivers", "leases"])
    for content in (b"", b"{}", b"\xff", b"[" * 100_000, b'{"id": "../../victim/settings"}'):
        files.write(driver_file("d" * 32), content)
        files.write(f"leases/key.1.{'d' * 32}", b"")
        with driver(files, clock) as one:
            assert not one.acquire("key")
            while not one.acquire("key"):
                clock.tick(files, one)
        assert files.names("drivers") == files.names("leases") == []


FOREIGN = (
    "drivers/x.json", f"drivers/{'d' * 32}.json.bak", f"drivers/{'D' * 32}.json", "drivers/..json", "leases/notes",
    "leases/key.1", "leases/key.1.../../victim", f"leases/key.x.{'d' * 32}", f"leases/.{'d' * 32}",
)  # fmt: skip


def test_foreign_files_are_named_once_and_stay(
    files: Files, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Among them a lease of version 0.1.0, and names and contents that lead out of the store."""
    victim = tmp_path / "settings.json"
    victim.write_text("mine")
    names = [name for name in FOREIGN if name.count("/") == 1]
    for name in names:
        files.write(name, json.dumps({"id": f"../../{victim.stem}"}).encode())
    with caplog.at_level(logging.WARNING), driver(files, clock) as one:
        assert one.acquire("key", "notes")
        for _ in range(3):
            one.look()
            clock.tick(files, one)
    assert sorted([f"{folder}/{name}" for folder in ("drivers", "leases") for name in files.names(folder)]) == sorted(
        name for name in names if not name.partition("/")[2].startswith(".")
    )
    for name in names:
        if not name.partition("/")[2].startswith("."):  # the system's own hidden files are not named
            (line,) = [record.getMessage() for record in caplog.records if name in record.getMessage().split(": ")[0]]
            assert line.startswith(files.locate(name))
    assert victim.read_text() == "mine"


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


@pytest.mark.parametrize("elsewhere", [1, 30])
def test_requests_of_a_look_do_not_grow_with_the_leases(s3: S3Server, elsewhere: int) -> None:
    files = Files(s3.new_url(), create=True)
    with driver(files, beat=30, expiry=60) as other, driver(files, beat=30, expiry=60) as one:
        assert other.acquire(*(f"theirs-{number}" for number in range(elsewhere)))
        one._others._refreshed = float("-inf")  # some time has passed
        before = s3.requests
        one.look()
        assert s3.requests == before + 4  # both listings, two announcements
        assert all(one.elsewhere(f"theirs-{number}") for number in range(elsewhere))
        assert s3.requests == before + 4


def test_requests_of_a_lease(s3: S3Server) -> None:
    files = Files(s3.new_url(), create=True)
    with driver(files, beat=30, expiry=60) as one:
        before = s3.requests
        assert one.acquire("key")
        assert s3.requests == before + 2
        one.release("key")
        assert s3.requests == before + 3


@linux
def test_requests_to_start_after_a_kill_do_not_grow_with_the_leases(s3: S3Server, tmp_path: Path) -> None:
    files = Files(s3.new_url(), create=True)
    counts = []
    for leases_left in (3, 30):
        killed = driver(files, beat=30, expiry=60)
        killed.beat()
        assert killed.acquire(*(f"key-{number}" for number in range(leases_left)))
        assert killed._lifeline is not None
        os.close(killed._lifeline._handle)  # as the kernel does
        before = s3.requests
        with driver(files, beat=30, expiry=60):
            counts.append(s3.requests - before)
            assert files.names("leases") == []
    assert counts[0] == counts[1] <= 10
