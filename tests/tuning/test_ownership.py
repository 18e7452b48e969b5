"""A driver that was suspended for longer than the expiry has lost its search, and adds nothing to it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from searches import Driver as SearchDriver
from searches import search

from scale_ray.store import Store, StoreError
from scale_ray.store.leases import Driver
from scale_ray.tuning.run import _own

# Hands out settings until it has lost the search; each takes a moment.
OWNER = """
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from searches import Driver as SearchDriver, search
from scale_ray.store import Store, StoreError
from scale_ray.store.leases import Driver
from scale_ray.tuning.run import _own
store = Store({store!r})
with Driver(store.files, beat=0.2, expiry=2.0) as driver:
    owned = _own(driver, "try")
    found = SearchDriver(search(Path({root!r}), repeats=1, settings=1000), store, still_owned=owned)
    print("owns it", flush=True)
    try:
        for _ in range(1000):
            found.work(1)
            time.sleep(0.05)
    except StoreError as error:
        print(error, flush=True)
"""


def test_a_suspended_owner_that_wakes_adds_nothing_to_the_search(tiny_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    code = OWNER.format(path=sys.path, store=store.location, root=str(tiny_root))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "owns it\n"
            journal = tmp_path / "store/tuning/try/journal.log"
            while journal.read_bytes().count(b"\n") < 20:
                time.sleep(0.05)
            owner.send_signal(signal.SIGSTOP)
            with Driver(store.files, beat=0.2, expiry=2.0) as driver:
                while True:
                    try:
                        owned = _own(driver, "try")
                        break
                    except ValueError:  # until the owner has been silent for long enough
                        time.sleep(0.1)
                before = journal.read_bytes()
                owner.send_signal(signal.SIGCONT)
                said = owner.stdout.readline()
                assert said.startswith("another driver has taken the search 'try' over (")
                assert owner.wait() == 0
                assert journal.read_bytes() == before.rpartition(b"\n")[0] + b"\n"
                owned()
        finally:
            owner.kill()


def test_ownership_is_asked_for_before_each_setting_and_each_result(tiny_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    lost = False

    def still_owned() -> None:
        if lost:
            raise StoreError("lost")

    driver = SearchDriver(search(tiny_root, early_stop="asha"), store, still_owned=still_owned)
    first, second = driver.settings.next(), driver.settings.next()
    assert first is not None
    assert second is not None
    driver.train(first)
    journal = tmp_path / "store/tuning/try/journal.log"
    before, lost = journal.read_bytes(), True
    for call in (
        lambda: driver.settings.next(),
        lambda: driver.settings.ended(first.id),
        lambda: driver.settings.add_point(second.id, 4, 0.5),
        lambda: driver.settings.stop(second.id, 4),
    ):
        with pytest.raises(StoreError, match="lost"):
            call()
    assert journal.read_bytes() == before
