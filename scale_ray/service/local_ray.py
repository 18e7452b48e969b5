"""A Ray of the service's own on this machine: `python -m scale_ray.service.local_ray DASHBOARD_PORT FOLDER`.

It ends when its standard input does, that is with the service, however that ends.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scale_ray.config import ConfigError

_SECONDS = 120.0  # for Ray to come up, on a busy machine
_ENDING = 20.0


@contextmanager
def start_ray() -> Iterator[str]:
    """Start Ray here for the block; it gives the URL of its dashboard, which takes jobs.

    Raises:
        ConfigError: it does not come up; the message has its last line.
    """
    place = os.environ.get("RAY_TMPDIR", "/tmp")
    with tempfile.TemporaryDirectory(prefix="sr_", dir=place, ignore_cleanup_errors=True) as folder:
        port, log = free_port(), Path(folder) / "ray.log"
        line = [sys.executable, "-P", "-m", "scale_ray.service.local_ray", str(port), folder]
        with log.open("wb") as out:
            # Ray's processes search their working folder for modules: not that in which the service was started.
            process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True, cwd=folder
            )
        try:
            _await(process, port, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(2 * _ENDING)


def _await(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    latest = time.monotonic() + _SECONDS
    while time.monotonic() < latest and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    said = log.read_text(errors="replace").strip().splitlines()
    raise ConfigError(f"Ray does not start on this machine: {said[-1] if said else 'it says nothing'}")


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(port: str, folder: str) -> int:
    """Run Ray's head until the standard input ends. Then the folder is removed."""
    ray = Path(sys.executable).with_name("ray")
    words = [str(ray), "start", "--head", "--block", "--port", str(free_port()), "--disable-usage-stats"]
    words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", port, "--temp-dir", folder]
    # Its agents have fixed ports by default, which another Ray on this machine may hold.
    for option in ("dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port"):
        words += [f"--{option}", str(free_port())]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    over = threading.Event()

    def end_with_the_service() -> None:
        sys.stdin.read()
        over.set()
        # At once, as every study goes on from its checkpoints: by SIGTERM Ray takes half a minute.
        _kill(process.pid)

    ending = threading.Thread(target=end_with_the_service, daemon=True)
    ending.start()
    status = process.wait()
    if over.is_set():
        ending.join()
        shutil.rmtree(folder, ignore_errors=True)
    return status


def _kill(pid: int) -> None:
    """Kill a process and all below it, and wait until they are gone."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(processes, timeout=_ENDING)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
