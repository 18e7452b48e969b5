"""Memory of N concurrent trials on one node: each maps the decoded cache, or each loads the same array.

    python benchmarks/pages.py --root PACS

1, 2 and 4 processes open the same decoded domain and read every byte of it. While all of them hold it, /proc/PID/smaps
(Linux only) tells the memory of the array. Rss counts a page in every process that has it. Pss divides a page among
these processes, so that the sum of Pss over all processes is the memory of the node. Shared pages are those that
several processes have. For comparison, as many processes each load the array into their own memory.
"""

import argparse
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from results import leave

from scale_ray.data.decoded import open_domains

MEBIBYTE = 2**20
FIELDS = ("Rss", "Pss", "Shared_Clean", "Shared_Dirty")


def hold(arguments: dict[str, Any], loads: bool, parent: Connection) -> None:
    """One trial: open the domain, read all of it, report its address, and hold it until told to end."""
    (domain,) = open_domains("image_folder", **arguments)
    images = np.array(domain.images) if loads else domain.images
    total = int(images.sum(dtype=np.int64))  # reads every byte
    parent.send((images.ctypes.data, images.nbytes, total))
    parent.recv()


def measure(arguments: dict[str, Any], processes: int, *, loads: bool) -> dict[str, float]:
    """Each field of smaps for the mappings of the images, summed over the processes."""
    context = multiprocessing.get_context("spawn")
    held = []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=hold, args=(arguments, loads, theirs))
        process.start()
        held.append((process, ours))
    places = [pipe.recv() for _, pipe in held]
    assert len({total for *_, total in places}) == 1, "all must have read the same images"
    found = [mappings(process.pid, *place) for (process, _), (*place, _) in zip(held, places, strict=True)]
    for process, pipe in held:
        pipe.send("end")
        process.join()
    return {field: sum(each[field] for each in found) for field in FIELDS}


def mappings(pid: int | None, address: int, length: int) -> dict[str, float]:
    """The fields of the mappings that contain an array (proc(5), smaps), in MiB."""
    fields = dict.fromkeys(FIELDS, 0.0)
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start < address + length and address < end
        elif inside and first[:-1] in FIELDS:
            fields[first[:-1]] += int(rest[0]) * 1024 / MEBIBYTE
    return fields


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="the folder that contains the domain's folder")
    parser.add_argument("--domain", default="sketch")
    parser.add_argument("--resize", type=int, default=144, help="pixels")
    options = parser.parse_args()
    arguments = {"domains": [options.domain], "root": options.root, "resize": options.resize, "corrupt": "error"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCALE_RAY_CACHE"] = folder
        (domain,) = open_domains("image_folder", **arguments)
        size, count = domain.images.nbytes / MEBIBYTE, len(domain.images)
        rows = []
        for loads in (False, True):
            for processes in (1, 2, 4):
                found = measure(arguments, processes, loads=loads)
                rows.append(
                    {
                        "images are": "loaded" if loads else "mapped",
                        "processes": processes,
                        "Rss": round(found["Rss"], 1),
                        "shared": round(found["Shared_Clean"] + found["Shared_Dirty"], 1),
                        "Pss": round(found["Pss"], 1),
                        "copies in memory": round(found["Pss"] / size, 2),
                    }
                )
    notes = [
        f"{count:,} images of {options.resize} x {options.resize} px: one copy is {size:,.1f} MiB",
        "copies in memory: Pss summed over the processes, by the size of one copy",
    ]
    print(leave("pages", "Memory of processes that hold one decoded domain: MiB, summed over them", rows, notes))


if __name__ == "__main__":
    main()
