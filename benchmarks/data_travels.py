"""A domain that travels through a store: push, fetch, opening, and what pixels cost against files.

    python benchmarks/data_travels.py [--images 200000] [--work FOLDER]

Images are made up: JPEGs of noise that was blurred, so that they compress as photographs do. Every step runs in a
process of its own with a cache of its own. The S3 server is the one of the tests, in this process and on loopback: its
speed is not that of a cloud, its number of requests is.
"""

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from own_process import measure, peak_mib, reset_peak
from PIL import Image, ImageFilter
from results import leave_tables

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from s3_server import s3_server

from scale_ray.data.decoded import Domain, domain_digest, open_known
from scale_ray.data.decoding import Decoding
from scale_ray.data.domain_files import domain_files
from scale_ray.data.pixels import decode_image
from scale_ray.data.shards import push
from scale_ray.data.work import cpus
from scale_ray.store import Store

CLASSES, SMALL, SIZE = 10, (96, 96), 64
PHOTO, PHOTO_SIZE = (640, 480), 256
BATCH, BATCHES = 64, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--work", type=Path, help="where images, stores and caches go for the time of the benchmark")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(STEPS[asked.step](**json.loads(os.environ["ARGUMENTS"]))))
        return
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        tables = {
            f"{asked.images:,} JPEGs of {SMALL[0]} px, decoded to {SIZE} px": _travels(Path(folder), asked.images),
            f"One photograph of {PHOTO[0]} x {PHOTO[1]} px for {PHOTO_SIZE} px: pixels or files": _kinds(),
        }
    notes = [
        "digests: sha256 of every file, which a plan needs; again: when no file has changed",
        "fetch: into the empty cache of another node; open: by the next process of that node, to the first batch",
        "peak: resident MiB of the process above those with which it began; images/s of a fetch and MB/s are of pixels",
        f"batches: {BATCH} images drawn at random from the mapped array, one thread",
        "break-even: the network at which a node of so many cores has decoded the files as soon as it would have "
        "copied the pixels; slower networks favour files",
    ]
    print(leave_tables("data_travels", "Domains that travel", tables, notes))


def _travels(folder: Path, count: int) -> list[dict[str, Any]]:
    root = folder / "root"
    began = time.monotonic()
    _make(root / "photo", count)
    print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    rows = []

    def step(what: str, name: str, cache: str, **arguments: Any) -> dict[str, Any]:
        os.environ |= {"SCALE_RAY_CACHE": str(folder / cache), "ARGUMENTS": json.dumps(arguments)}
        found = measure(__file__, "--step", name)
        rows.append({"what": what, **_shown(found, count)})
        print(rows[-1], flush=True)
        return found

    common = {"root": str(root)}
    digest = step("digests", "digest", "driver", **common)["digest"]
    step("digests again", "digest", "driver", **common)
    step("push to a folder", "push", "driver", store=str(folder / "store"), **common)
    step("fetch from a folder", "open", "node", store=str(folder / "store"), digest=digest)
    step("open, batches", "open", "node", store=str(folder / "store"), digest=digest)
    step("decode from the root", "open", "other", digest=digest, **common)
    shutil.rmtree(folder / "store")
    shutil.rmtree(folder / "other")
    with s3_server() as s3:
        url = s3.new_url()
        for what, name, cache, more in (
            ("push to S3", "push", "driver", common),
            ("fetch from S3", "open", "far", {"digest": digest}),
        ):
            before = s3.requests
            step(what, name, cache, store=url, **more)
            rows[-1]["requests"] = s3.requests - before
    return rows


def _shown(found: dict[str, Any], count: int) -> dict[str, Any]:
    seconds = found["seconds"]
    return {
        "seconds": f"{seconds:.1f}",
        "images/s": f"{count / seconds:,.0f}",
        "MB/s": f"{found['bytes'] / seconds / 1e6:,.0f}" if found.get("bytes") else "",
        "peak MiB": f"{found['peak']:,.0f}",
        "batches, images/s": f"{found['batches']:,.0f}" if "batches" in found else "",
        "requests": "",
    }


def _make(folder: Path, count: int) -> None:
    with ProcessPoolExecutor(cpus()) as pool:
        list(pool.map(partial(_make_class, folder, count // CLASSES), range(CLASSES)))


def _make_class(folder: Path, count: int, label: int) -> None:
    place = folder / f"class {label}"
    place.mkdir(parents=True)
    numbers = np.random.default_rng(label)
    for number in range(count):
        (place / f"{number:06}.jpg").write_bytes(_jpeg(numbers, SMALL))


def _jpeg(numbers: np.random.Generator, size: tuple[int, int]) -> bytes:
    coarse = Image.fromarray(numbers.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8))
    content = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.DETAIL).save(content, "JPEG", quality=90)
    return content.getvalue()


def _digest(root: str) -> dict[str, Any]:
    reset_peak()
    before, began = peak_mib(), time.monotonic()
    digest = domain_digest("image_folder", "photo", root=Path(root))
    return {"seconds": time.monotonic() - began, "peak": peak_mib() - before, "digest": digest}


def _push(root: str, store: str) -> dict[str, Any]:
    opened = Store(store, create=True)
    reset_peak()
    before, began = peak_mib(), time.monotonic()
    done = push(domain_files("image_folder", "photo", Path(root)), "image_folder", Decoding(SIZE), opened)
    return {"seconds": time.monotonic() - began, "peak": peak_mib() - before, "bytes": done.written}


def _open(digest: str, store: str | None = None, root: str | None = None) -> dict[str, Any]:
    reset_peak()
    before, began = peak_mib(), time.monotonic()
    domain = open_known(
        *("image_folder", "photo", digest, Decoding(SIZE)),
        root=None if root is None else Path(root),
        store=None if store is None else Store(store),
    )
    np.array(domain.images[:BATCH])
    seconds = time.monotonic() - began
    found = {"seconds": seconds, "peak": peak_mib() - before, "bytes": domain.images.nbytes}
    return found | {"batches": _batches(domain)}


def _batches(domain: Domain) -> float:
    numbers = np.random.default_rng(0)
    chosen = [np.sort(numbers.integers(0, len(domain.images), BATCH)) for _ in range(BATCHES)]
    began = time.monotonic()
    for places in chosen:
        domain.images[places]
    return BATCH * BATCHES / (time.monotonic() - began)


def _kinds() -> list[dict[str, Any]]:
    numbers = np.random.default_rng(0)
    files = [_jpeg(numbers, PHOTO) for _ in range(100)]
    began = time.process_time()
    for data in files:
        decode_image(data, PHOTO_SIZE)
    seconds = (time.process_time() - began) / len(files)
    size, pixels = sum(map(len, files)) / len(files), 3 * PHOTO_SIZE**2
    return [
        {
            "cores of a node": cores,
            "bytes of the file": f"{size:,.0f}",
            "bytes of the pixels": f"{pixels:,}",
            "ms to decode, one core": f"{1000 * seconds:.1f}",
            "break-even, Gbit/s": f"{8 * (pixels - size) / (seconds / cores) / 1e9:.1f}",
        }
        for cores in (2, 8, 32)
    ]


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"digest": _digest, "push": _push, "open": _open}

if __name__ == "__main__":
    main()
