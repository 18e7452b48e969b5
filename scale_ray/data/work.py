"""Work on many items: in threads, with progress and the time left."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scale_ray.costs import duration

T = TypeVar("T")
R = TypeVar("R")

# Without a terminal: seconds until the first line with the time left, and between two such lines.
_FIRST_LINE_SECONDS, _LINE_SECONDS = 5.0, 30.0

_listeners: list[Callable[[], None]] = []  # see `heard`


@contextmanager
def heard(listener: Callable[[], None]) -> Iterator[None]:
    """Call `listener` within the block at every item of work that `progress` shows, and while a lock is waited for."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell_listeners() -> None:
    """Call what `heard` was given."""
    for listener in _listeners:
        listener()


def in_threads(
    work: Callable[[T], R],
    items: Sequence[T],
    what: str,
    *,
    threads: int | None = None,
    together: int = 256,
    each: int = 1,
    total: int | None = None,
) -> Iterator[R]:
    """Yield `work(item)` for each item, in order, computed by threads; progress is shown on stderr.

    Args:
        work: called once per item.
        items: its arguments.
        what: describes the work in the progress display.
        threads: number of threads; None means one per CPU that this process may use.
        together: number of items that are processed as one block; at most so many results wait in memory.
        each, total: see `progress`; by default every item counts as one.
    """

    def results() -> Iterator[R]:
        pool = ThreadPoolExecutor(threads or cpus())
        wait = True
        try:
            for start in range(0, len(items), together):
                yield from pool.map(work, items[start : start + together])
        except (KeyboardInterrupt, GeneratorExit):
            wait = False  # nobody wants what is under way
            raise
        finally:
            pool.shutdown(wait=wait, cancel_futures=True)

    return progress(results(), len(items), what, each, total)


def cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress(items: Iterable[T], number: int, what: str, each: int = 1, total: int | None = None) -> Iterator[T]:
    """Yield the items and show progress and the time left on stderr: a bar on a terminal, otherwise some lines.

    Args:
        items: what is worked on.
        number: how many items there are.
        what: describes the work.
        each: how many things an item is; the last one may be fewer.
        total: of these things, those that were done before included; None: there were none.
    """
    for item in _shown(items, number, what, each, number * each if total is None else total):
        tell_listeners()
        yield item


def _shown(items: Iterable[T], number: int, what: str, each: int, total: int) -> Iterator[T]:
    def done(ended: int) -> int:
        return max(0, total - (number - ended) * each) if ended < number else total

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done(0))
            for ended, item in enumerate(items, 1):
                yield item
                bar.update(task, completed=done(ended))
        return
    before = f"{done(0):,} of " if done(0) else ""
    print(f"{what}: {before}{total:,}", file=sys.stderr)
    began = time.monotonic()
    next_line = began + _FIRST_LINE_SECONDS
    for ended, item in enumerate(items, 1):
        yield item
        if ended < number and (now := time.monotonic()) > next_line:
            left = duration((now - began) / ended * (number - ended))
            print(f"{what}: {done(ended):,} of {total:,}, about {left} left", file=sys.stderr)
            next_line = now + _LINE_SECONDS
