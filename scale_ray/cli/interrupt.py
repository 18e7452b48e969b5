"""Ctrl-C: a command says at once that it is stopping, and is gone within seconds, whatever it is doing.

Python raises KeyboardInterrupt in the main thread, but only when that returns from C code: a backward pass or a call of
Ray may last longer than a person waits. So a thread hears of the signal too: it says what is kept, and ends the process
and those below it where the command has not ended by itself. All files are written whole or not at all, and the leases
of a process that is gone are void, so nothing is lost by that.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scale_ray.cli.console import INTERRUPTED

_SECONDS = 4.0  # from Ctrl-C until a command is ended that has not ended by itself

# What a command that trains on Ray says.
GO_ON = "what is done is kept, with the last checkpoints; run the same command again to go on"

_kept = ("", _SECONDS)  # what the running command says about itself, and how long it may take to end


def on_ctrl_c(kept: str, seconds: float = _SECONDS) -> None:
    """Say in the message after Ctrl-C what is kept, and how to go on. After so many seconds the command is ended."""
    global _kept
    _kept = (kept, seconds)


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Within the block, Ctrl-C ends the process with status 130, a second one at once."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell does for what it starts in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    usual = signal.signal(signal.SIGINT, _raise_once)
    heard = threading.Event()
    on_ctrl_c("")
    threading.Thread(target=_listen, args=(reading, heard), name="Ctrl-C", daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or end.code == INTERRUPTED:
            heard.wait(_SECONDS)  # the thread may only just hear of it
        raise
    finally:
        if heard.is_set():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends at once in any case
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            end_at_once()  # threads that are still at work would keep the process
        signal.signal(signal.SIGINT, usual)
        signal.set_wakeup_fd(before)
        os.close(writing)


def _raise_once(number: int, frame: object) -> None:
    """KeyboardInterrupt at the first Ctrl-C. A second one is the thread's: here it would break off the end."""
    signal.signal(signal.SIGINT, lambda *_: None)
    raise KeyboardInterrupt


def _listen(reading: int, heard: threading.Event) -> None:
    """Wait for Ctrl-C, then for the end of the time or a second one."""
    if not _hears(reading):
        os.close(reading)
        return
    words, seconds = _kept
    kept = f": {words}" if words else ""
    with suppress(OSError):  # the terminal may be gone
        os.write(2, f"\nstopping{kept} (Ctrl-C again ends it at once)\n".encode())
    heard.set()
    limit = threading.Timer(seconds, end_at_once)
    limit.daemon = True
    limit.start()
    if _hears(reading):
        end_at_once()


def _hears(reading: int) -> bool:
    """Wait for the number of the signal; False where the block has ended."""
    while number := os.read(reading, 1):
        if number[0] == signal.SIGINT:
            return True
    return False


def end_at_once(status: int = INTERRUPTED) -> None:
    """End the process and those below it, whatever they are doing."""
    import psutil

    # From the top: what Ray would start again, it starts no more.
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # a progress display hides the cursor
    os._exit(status)
