"""Predictions of many images on Ray: Ray Data hands out shards, each leaves a whole file, and a second run skips it.

OUT/predictions.json    which model, which images, and how they are divided into shards
OUT/part-00000.csv      the predictions of the first shard's images, in order
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.exceptions import RayError
from rich.console import Console

from scale_ray.bundle.contents import Bundle
from scale_ray.bundle.model import Model
from scale_ray.bundle.table import table_of
from scale_ray.config import ConfigError, Resources
from scale_ray.errors import UserError
from scale_ray.store.files import Files
from scale_ray.sweep.cluster import fitting, footprint, start_ray

MANIFEST = "predictions.json"


@dataclass(frozen=True)
class Sharded:
    """What is predicted into one place, by shards.

    Args:
        bundle: the model.
        paths: of all images, absolute or URLs.
        size: images of a shard.
        suffix: of the files of predictions, see `bundle.table.TABLES`.
    """

    bundle: Bundle
    paths: Sequence[str]
    size: int
    suffix: str

    def __len__(self) -> int:
        return -(-len(self.paths) // self.size)

    def images(self, shard: int) -> Sequence[str]:
        return self.paths[shard * self.size : (shard + 1) * self.size]

    def file(self, shard: int) -> str:
        return f"part-{shard:05}{self.suffix}"

    @property
    def manifest(self) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(self.paths).encode(errors="surrogateescape")).hexdigest()
        return {
            "record": self.bundle.record,
            "images": len(self.paths),
            "sha256_of_paths": digest,
            "shard": self.size,
            "suffix": self.suffix,
        }


def shards_to_do(work: Sharded, out: Files) -> list[int]:
    """The shards without a file; notes what the place is for.

    Raises:
        ConfigError: the place holds predictions of other images, of another model, or in other shards.
        StoreError: it cannot be written to.
    """
    out.make_folders([""])
    before = out.read(MANIFEST)
    if before is None:
        if others := out.names(""):
            raise ConfigError(f"--out {out.location}: holds other files ({others[0]}): give a new folder")
        out.write(MANIFEST, (json.dumps(work.manifest, indent=1) + "\n").encode())
    else:
        _refuse_others(work, out, before)
    there = set(out.names(""))
    return [shard for shard in range(len(work)) if work.file(shard) not in there]


def _refuse_others(work: Sharded, out: Files, before: bytes) -> None:
    try:
        known = json.loads(before)
        differing = [name for name, value in work.manifest.items() if known[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{out.locate(MANIFEST)}: cannot be read ({error}): give another --out") from error
    if differing:
        raise ConfigError(
            f"--out {out.location}: holds predictions of another run (they differ in {', '.join(differing)}): give "
            "another folder, or the same model, images, --shard and format"
        )


def predict_shards(
    work: Sharded,
    shards: Sequence[int],
    out: Files,
    resources: Resources,
    console: Console,
    *,
    device: str,
    batch: int,
) -> Iterator[tuple[int, int]]:
    """Predict these shards on Ray; each is done when its file is there. A shard whose process dies is begun again.

    Yields:
        Images and unreadable images of every shard that has ended.

    Raises:
        UserError: Ray cannot be had, a worker cannot use the model, or the place cannot be written to.
    """
    try:
        joined = start_ray(resources, console)
        needs = footprint(resources, device, console, cluster=joined)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        most = len(shards) if joined else min(len(shards), fitting([ray.cluster_resources()], needs.bundle))
        items = [{"shard": shard, "paths": list(work.images(shard))} for shard in shards]
        arguments = (ray.put(work.bundle), work.suffix, out.location, device, batch, resources.cpus)
        done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=arguments,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(most, 1)),
            num_cpus=needs.bundle["CPU"],
            num_gpus=needs.bundle.get("GPU", 0),
        )
        for row in done.iter_rows():
            yield int(row["images"]), int(row["unreadable"])
        out.remove_temporaries("")  # of killed workers
    except RayError as error:
        raise _users(error) from error
    finally:
        ray.shutdown()


def _users(error: BaseException) -> BaseException:
    """The user's error that has ended a worker; else the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return UserError(str(getattr(seen, "cause", seen)))
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


class _Worker:
    """Predicts shards, one after the other, with a model that it opens once."""

    def __init__(self, bundle: Any, suffix: str, location: str, device: str, batch: int, threads: int):
        torch.set_num_threads(threads)
        self._model, self._batch = Model(ray.get(bundle), device, threads), batch
        self._suffix, self._out = suffix, Files(location)

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[int]]:
        (shard,), (paths,) = rows["shard"].tolist(), rows["paths"]
        found = list(self._model.rows([str(path) for path in paths], self._batch))
        self._out.write(f"part-{shard:05}{self._suffix}", table_of(found, self._suffix))
        unreadable = sum(each.problem is not None for each in found)
        return {"images": [len(found)], "unreadable": [unreadable]}
