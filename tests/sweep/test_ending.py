"""How a study's process ends when it is told to, on a terminal that may be gone."""

import os
import pty
import sys
from pathlib import Path

import scale_ray

# A driver that takes its time, in a process that ends as a study does.
PROCESS = f"""
import os, signal, sys, time
sys.path.insert(0, {str(Path(scale_ray.__file__).parents[1])!r})
from scale_ray.sweep.ending import ending_at_once

class Driver:
    def resign(self):
        open(sys.argv[1], "w").close()
        time.sleep(float(sys.argv[2]))

if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with ending_at_once(Driver()):
    print("ready", flush=True)
    time.sleep(3)
os._exit(0)
"""


def close_the_terminal(*arguments: str) -> int:
    """Start the process on a terminal of its own, close that, and return the exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROCESS, *arguments])
    shown = b""
    while b"ready\r\n" not in shown:  # the whole line: half of it could not be written any more
        shown += os.read(terminal, 1000)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_closed_terminal_ends_it_with_its_leases_freed(tmp_path: Path) -> None:
    assert close_the_terminal(str(tmp_path / "resigned"), "0") == 128 + 1
    assert (tmp_path / "resigned").exists()


def test_a_store_that_does_not_answer_keeps_no_process(tmp_path: Path) -> None:
    assert close_the_terminal(str(tmp_path / "resigned"), "1e6") == 128 + 1


def test_who_ignores_a_closed_terminal_goes_on(tmp_path: Path) -> None:
    """`nohup scale-ray ablate … &`"""
    assert close_the_terminal(str(tmp_path / "resigned"), "0", "nohup") == 0
    assert not (tmp_path / "resigned").exists()
