"""A Ray of the service's own on this machine: `python -m scale_ray.service.local_ray DASHBOARD_PORT FOLDER`.

It ends when its standard input does, that is with the service, however that ends.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scale_ray.config import ConfigError

_SECONDS = 120.0  # for Ray to come up, on a busy machine
_ENDING = 20.0


@contextmanager
def start_ray() -> Iterator[str]:
    """Start Ray here for the block; it gives the URL of its dashboard, which takes jobs.

    Raises:
        ConfigError: it does not come up; the message has its last line.
    """
    with tempfile.TemporaryDirectory(prefix="sr_", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder:
        port, log = free_port(), Path(folder) / "ray.log"
        line = [sys.executable, "-m", "scale_ray.service.local_ray", str(port), folder]
        with log.open("wb") as out:
            process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
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
    """Run Ray's head until the standard input ends."""
    ray = Path(sys.executable).with_name("ray")
    words = [str(ray), "start", "--head", "--block", "--port", str(free_port()), "--disable-usage-stats"]
    words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", port, "--temp-dir", folder]
    # Its agents have fixed ports by default, which another Ray on this machine may hold.
    for option in ("dashboard-agent-listen-port", "metrics-export-port", "runtime-env-agent-port"):
        words += [f"--{option}", str(free_port())]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    def end_with_the_service() -> None:
        sys.stdin.read()
        process.send_signal(signal.SIGTERM)

    threading.Thread(target=end_with_the_service, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
