"""How a study ends when it is told to: SIGTERM and a closed terminal end it at once."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil
import ray
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER

from scale_ray.store.leases import Driver

logger = logging.getLogger(__name__)

# `ray job stop` sends SIGKILL three seconds after SIGTERM.
_SECONDS = 1.5


@contextmanager
def ending_at_once(driver: Driver) -> Iterator[None]:
    """End this process within two seconds of SIGTERM or SIGHUP, and with it a Ray that it started.

    Its leases are free for other drivers at once. A cluster ends the trials of a process that is gone and removes their
    placement groups, so nodes that were started for them become idle. What was trained is in the store.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def end(number: int, frame: FrameType | None) -> None:
        # In a thread, because the store may not answer, and this one may hold a lock that is needed.
        resigning = threading.Thread(target=_resign, args=(driver,), daemon=True)
        resigning.start()
        resigning.join(timeout=_SECONDS)
        kill_ray()
        _say(b"ended by a signal: run the same command again to go on\n")
        os._exit(128 + number)

    # Who ignores a signal, as `nohup` does for a closed terminal, wants the study to go on.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def kill_ray(*, but_its_store: bool = False) -> None:
    """Kill the processes of a Ray that this process has started; its trials would live on for a minute.

    Args:
        but_its_store: leave the process that `ray.shutdown` talks to, which would otherwise wait for seconds.
    """
    node = ray._private.worker._global_node  # of a cluster that was joined, it holds no process
    for kind, started in () if node is None else node.all_processes.items():
        if but_its_store and kind == PROCESS_TYPE_GCS_SERVER:
            continue
        for each in started:
            with suppress(psutil.Error):  # it has ended by itself
                process = psutil.Process(each.process.pid)
                for below in (*process.children(recursive=True), process):
                    with suppress(psutil.Error):
                        below.kill()


def _say(line: bytes) -> None:
    """Write to the terminal, which may be gone, and show its cursor, which the progress display hides."""
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")
        os.write(2, line)


def _resign(driver: Driver) -> None:
    try:
        driver.resign()
    except Exception as error:  # noqa: BLE001 - the process ends in any case
        logger.warning("the driver's leases stay until they expire: %s", error)
