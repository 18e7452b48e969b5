"""Which processes there are, and what memory each has for itself. Linux only."""

from collections.abc import Iterator
from pathlib import Path


def processes() -> Iterator[tuple[int, int]]:
    """(pid, parent's pid) of every process that can be seen."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue


def descendants(pid: int) -> list[int]:
    """Pids of all processes below one."""
    children: dict[int, list[int]] = {}
    for child, parent in processes():
        children.setdefault(parent, []).append(child)
    found, open_ = [], [pid]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def name_of(pid: int) -> str:
    """The first word of its command line; empty if it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return words[0] if words else ""


def private_mb(pid: int) -> float:
    """MB that would be free if the process ended (proc(5), smaps_rollup); 0 if it has."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1000
