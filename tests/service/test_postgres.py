"""The service's table on a real PostgreSQL: skipped where there is none (`apt-get install postgresql`)."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated import Desk

from scale_ray.service.access import create_token, revoke_token, tokens
from scale_ray.service.database import Database
from scale_ray.service.watch import Counts

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
INITDB = shutil.which("initdb", path=os.pathsep.join([*map(str, reversed(BINARIES)), os.environ.get("PATH", "")]))
pytestmark = pytest.mark.skipif(INITDB is None, reason="needs PostgreSQL (Debian: postgresql)")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server on loopback, which ends with the module. It refuses to run as root."""
    assert INITDB is not None
    own = {"user": pwd.getpwnam("nobody").pw_uid, "cwd": "/"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as folder:
        if own:
            os.chown(folder, own["user"], -1)  # type: ignore[arg-type]
        data = f"{folder}/data"
        subprocess.run([INITDB, "-D", data, "-U", "scale", "-A", "trust"], check=True, capture_output=True, **own)  # type: ignore[call-overload]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        line = [INITDB.replace("initdb", "postgres"), "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **own) as server:  # type: ignore[call-overload]
            while not _answers(port):
                assert server.poll() is None
                time.sleep(0.1)
            yield f"postgresql+psycopg://scale@127.0.0.1:{port}/postgres"
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="scale", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_study_runs_and_goes_on_after_a_restart(url: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, database=url)
    desk.add("s")
    desk.rounds(2)
    assert (desk.row("s").state, desk.jobs.submitted) == ("running", ["s-1"])
    desk.database.close()
    desk.database = Database(url)
    desk.restarted()
    desk.jobs.lose_all()
    desk.rounds(10)
    assert desk.jobs.submitted == ["s-1", "s-2"]
    desk.told["s"] = Counts(4, 0, 4)
    desk.jobs.end("s-2", "succeeded", 0)
    desk.rounds(2)
    assert (desk.row("s").state, desk.row("s").done) == ("done", 4)
    desk.database.close()


def test_tokens_are_kept(url: str) -> None:
    database = Database(url)
    create_token(database, "ann", "read")
    (row,) = tokens(database)
    assert revoke_token(database, row.digest[:10]).owner == "ann"
    assert tokens(database) == []
    database.close()
