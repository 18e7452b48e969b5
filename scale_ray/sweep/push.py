"""Domains put into the store before a study on a cluster, so that its nodes need the images nowhere else."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from scale_ray.config import Resources, Root
from scale_ray.data.decoding import Decoding
from scale_ray.data.domain_files import DomainFiles, checked_files
from scale_ray.data.shards import Kind, Part, Pushed, Runner, Shard, in_this_process, is_stored, push, write_part
from scale_ray.data.work import progress
from scale_ray.errors import UserError, shown
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.leases import Driver
from scale_ray.sweep.cluster import start_ray
from scale_ray.sweep.plan import reading_differently

# Parts that wait for a CPU of the cluster: enough for an autoscaler to see that nodes are of use.
_WAITING = 64

# Seconds between two looks at what this waits for: another driver, or a node.
_ASK_SECONDS = 5.0

Made = tuple[Shard, int]  # a shard, and how many bytes were written of it

Check = Callable[[int], None]  # is told how many bytes were written, and may end the push


def _go_on(written: int) -> None:
    """Nobody ends the push."""


def share_data(
    stages: Sequence[Stage],
    root: Root | None,
    store: Store,
    driver: Driver | None,
    check: Check = _go_on,
) -> None:
    """Put every domain that the stages read into the store, unless it is there. Drawn digits need none.

    Args:
        driver: leases each domain, so that of several drivers one stores it; None: nobody asks.
        check: is called after each shard with the bytes that were written of it, and with 0 while this waits. What it
            raises ends this; the next call goes on after the shards that are stored.

    Raises:
        ConfigError, DataError: the images are not as they must be. Nothing has run then.
        StoreError: the store cannot be written to.
    """
    for stage in reading_differently(stages):
        data = stage.config.data
        if data.benchmark == "digits":
            continue
        decoding = Decoding(data.resize, data.corrupt, data.fit)
        for name, digest in stage.digests.items():
            if not is_stored(store, name, digest, decoding):
                _store_or_wait(data.benchmark, name, digest, decoding, root, store, driver, check)


def _store_or_wait(
    benchmark: str,
    name: str,
    digest: str,
    decoding: Decoding,
    root: Root | None,
    store: Store,
    driver: Driver | None,
    check: Check,
) -> None:
    """Store a domain, or wait until the driver that stores it has done so or has died."""
    key = f"data-{decoding.key(digest)}"
    while driver is not None and not driver.acquire(key):
        check(0)
        time.sleep(_ASK_SECONDS)
        if is_stored(store, name, digest, decoding):
            return
    try:
        if not is_stored(store, name, digest, decoding):
            files = checked_files(benchmark, [name], root)[name]
            push(files, benchmark, decoding, store, run=runner_of(files, check))
    finally:
        if driver is not None:
            driver.release(key)


def push_domains(
    benchmark: str,
    names: Sequence[str],
    root: Root | None,
    decoding: Decoding,
    store: Store,
    console: Console,
    *,
    kind: Kind | None = None,
) -> Iterator[tuple[str, Pushed]]:
    """Put domains into a store whether or not a study needs them yet; yield each name and what was done.

    Where every machine can read the images, tasks on Ray do it, on a cluster if this machine belongs to one.

    Raises:
        ConfigError, DataError: the images are not as they must be.
        StoreError: the store cannot be written to.
    """
    found = checked_files(benchmark, names, root)
    try:
        if any(files.anywhere for files in found.values()):
            start_ray(Resources(), console)
        for name, files in found.items():
            yield name, push(files, benchmark, decoding, store, kind=kind, run=runner_of(files))
    finally:
        if ray.is_initialized():
            ray.shutdown()


def runner_of(files: DomainFiles, check: Check = _go_on) -> Runner:
    """What makes the shards of a domain: all nodes where each can read its images, else this process."""
    return partial(on_ray if files.anywhere else _here, check=check)


def _here(files: DomainFiles, parts: Sequence[Part], store: Store, folder: str, *, check: Check) -> Iterator[Made]:
    for shard, written in in_this_process(files, parts, store, folder):
        check(written)
        yield shard, written


def on_ray(
    files: DomainFiles, parts: Sequence[Part], store: Store, folder: str, *, check: Check = _go_on
) -> Iterator[Made]:
    """A `Runner`: tasks on the Ray that this process is connected to, one CPU each."""
    write = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(write_part)
    common = ray.put(files)  # once for all tasks

    def results() -> Iterator[Made]:
        left = iter(parts)
        running = deque(write.remote(common, part, store, folder) for part in islice(left, _WAITING))
        while running:
            while not ray.wait([running[0]], timeout=_ASK_SECONDS)[0]:
                check(0)
            shard, written = _result(running.popleft())
            check(written)
            yield shard, written
            running.extend(write.remote(common, part, store, folder) for part in islice(left, 1))

    each = parts[0].last - parts[0].first
    return progress(results(), len(parts), f"storing {shown(files.name)}, images", each, len(files.names))


def _result(task: "ray.ObjectRef[Made]") -> Made:
    try:
        found: Made = ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return found
