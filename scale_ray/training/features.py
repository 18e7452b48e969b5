"""Features of a frozen encoder (model.encoder = frozen): computed once, kept in the store, mapped by every trial.

For every image of a domain, the encoder in evaluation mode computes pooled features of the evaluation view, of V weak
views and of V strong views (V = model.frozen_views): (N, 1 + 2V, D) float16, as `data.feature_views` reads them. The
seeds of the views are fixed, so features depend neither on a trial's seed nor on the number of threads.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.config import RECIPE_VERSION, Execution, Root, TrialConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder, discard, open_or_build
from scale_ray.data.decoded import Domain, open_known
from scale_ray.data.decoding import Decoding
from scale_ray.data.feature_views import VIEWS
from scale_ray.data.manifest import check_manifest, write_manifest
from scale_ray.data.pixels import DECODER_VERSION
from scale_ray.data.work import in_threads
from scale_ray.models import build_encoder
from scale_ray.models.backbones import check_weights, feature_dim
from scale_ray.models.network import pooled
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.store.files import StoreError, replace_file
from scale_ray.timm_names import is_timm
from scale_ray.training.resolve import refuse_changed_weights
from scale_ray.training.seeding import generator
from scale_ray.training.setup import find_device

logger = logging.getLogger(__name__)

# Raise it whenever the same images would give other features.
FEATURES_VERSION = 1

# Images that are forwarded together, and for which a view's parameters are drawn.
_BATCH = 64

_FILE = "features.npy"

_DIGEST_SIZE = hashlib.sha256().digest_size


def open_inputs(stage: Stage, execution: Execution, store: Store | None) -> tuple[Domain, Mapping[str, Domain]]:
    """The source and the targets of a stage by name: with images, or with features where its encoder is frozen.

    Features that neither this machine nor the store has are computed here and put into both. Of several processes on a
    machine one computes and the others wait.

    What the stage was planned with must still be there, in the cache, the store or the root: other images or weights
    would give numbers under a wrong id.

    Args:
        stage: its config names the benchmark, the encoder and the views; its digests name the content.
        execution: where images lie, on which device and by how many threads features are computed.
        store: keeps features for other machines; None keeps them on this machine only.

    Raises:
        ConfigError, DataError: as `open_data`.
        WeightsError: the weights cannot be used, or have changed.
    """
    refuse_changed_weights(stage)
    source, opened = open_data(stage, execution.root, store)
    if stage.config.model.encoder == "trained":
        return source, opened
    featured = {
        domain.name: replace(domain, images=_features(stage, domain, execution, store))
        for domain in (source, *opened.values())
    }
    return featured[source.name], {name: featured[domain.name] for name, domain in opened.items()}


def open_data(stage: Stage, root: Root | None, store: Store | None) -> tuple[Domain, Mapping[str, Domain]]:
    """The decoded source of a stage, and its decoded targets by name. The first call on a machine fetches or decodes.

    Args:
        stage: its digests name the content.
        root: where the images are.
        store: may have the decoded domains; None: nowhere but here.

    Raises:
        ConfigError: neither the cache nor the store has a domain, nor does the root.
        DataError: folders, classes or images are not as they must be, or have changed.
    """
    data = stage.config.data
    decoding = Decoding(data.resize, data.corrupt, data.fit)
    opened = {
        name: open_known(data.benchmark, name, digest, decoding, root=root, store=store)
        for name, digest in stage.digests.items()
    }
    return opened[data.source], {name: opened[name] for name in stage.targets}


def features_key(stage: Stage, domain: str) -> str:
    """Names the features of a domain of a stage by everything that determines them: 32 hex digits."""
    model, data, config = stage.config.model, stage.config.data, stage.config
    document: dict[str, Any] = {
        "versions": [FEATURES_VERSION, DECODER_VERSION, RECIPE_VERSION],
        "content": stage.digests[domain],
        "backbone": model.backbone,
        "weights": stage.weights_digest or model.weights,
        "precision": config.optim.precision,
        "views": config.views.model_dump(mode="json", exclude={"source"}),  # which of them a step draws
        "kept": model.frozen_views,
        "size": [data.resize, data.image_size],
    }
    if is_timm(model.backbone):  # whose mean, deviation and pooling it sets
        document["timm"] = version("timm")
    if data.fit != "squeeze":
        document["fit"] = data.fit
    inputs = stage.waiting[0].inputs
    if code := {role: inputs[role] for role in inputs if role.startswith(("backbone ", "strong view "))}:
        document["code"] = code
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _features(stage: Stage, domain: Domain, execution: Execution, store: Store | None) -> np.ndarray:
    """(N, 1 + 2V, D) float16, memory-mapped."""
    config = stage.config
    check_weights(config.model.backbone, config.model.weights)
    key = features_key(stage, domain.name)
    folder = cache_folder() / "features" / key

    def build(unfinished: Path) -> None:
        path = unfinished / _FILE
        if store is None or not _take(store, key, path, _shape(config, domain)):
            parts = _Parts(folder.with_name(f".parts-{key}"))
            _compute(stage, domain, execution, path, parts)
            refuse_changed_weights(stage)
            parts.discard()
        write_manifest(unfinished, f"{config.data.benchmark} {domain.name}, {config.model.backbone}")

    features = open_or_build(folder, partial(_load, shape=_shape(config, domain)), build, one_builds=True)
    # After the cache is filled: a store that cannot be written must not lose what was computed.
    if store is not None and not store.has_features(key):
        content = (folder / _FILE).read_bytes()
        store.write_features(key, content, hashlib.sha256(content).hexdigest())
    return features


def _take(store: Store, key: str, path: Path, shape: tuple[int, ...]) -> bool:
    """Copy features from the store to `path`; return whether it had them undamaged. Damaged ones are deleted there."""
    found = store.read_features(key)
    if found is None:
        return False
    content, digest = found
    try:
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its bytes are not those that were written")
        path.write_bytes(content)
        _open(path, shape)
    except (ValueError, EOFError) as error:
        logger.warning("%s is damaged: features are computed anew (%s)", store.features_location(key), error)
        store.delete_features(key)
        return False
    return True


def _load(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    check_manifest(folder)
    return _open(folder / _FILE, shape)


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Memory-mapped features; raises a ValueError or EOFError where there are none of this shape."""
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if features.shape != shape or features.dtype != np.float16:
        raise ValueError(f"{features.dtype} of the shape {features.shape}, expected float16 of {shape}")
    return np.asarray(features)


def _shape(config: TrialConfig, domain: Domain) -> tuple[int, ...]:
    model = config.model
    width = feature_dim(model.backbone, config.data.image_size)
    return len(domain.images), 1 + 2 * model.frozen_views, width


class _Parts:
    """Features of batches that are done, beside the cache's folder: an interrupted computation goes on from them.

    Each is a file with a digest of its place and its bytes. One that is damaged, or cannot be written, is computed
    anew.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def take(self, start: int, size: int) -> bytes | None:
        """So many bytes of the batch that begins with this image; None where they are not there."""
        try:
            written = (self._folder / str(start)).read_bytes()
        except OSError:
            return None
        content = written[_DIGEST_SIZE:]
        return content if written == self._signed(start, content) and len(content) == size else None

    def keep(self, start: int, content: bytes) -> None:
        with suppress(OSError, StoreError):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / str(start), self._signed(start, content))

    def discard(self) -> None:
        with suppress(DataError):  # `scale-ray data clear` deletes it
            discard(self._folder)

    def _signed(self, start: int, content: bytes) -> bytes:
        return hashlib.sha256(f"{self._folder.name} {start}\n".encode() + content).digest() + content


def _compute(stage: Stage, domain: Domain, execution: Execution, path: Path, parts: _Parts) -> None:
    config, device = stage.config, find_device(execution.device)
    model, size = config.model, config.data.image_size
    encoder = build_encoder(model.backbone, model.weights, size).to(device).eval()
    if execution.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
    refuse_changed_weights(stage)  # before a part is kept: they have been read only now
    count, *width = _shape(config, domain)
    starts = range(0, count, _BATCH)
    work = partial(_forward, config, encoder, domain.images, device)
    what = f"features of {domain.name} by {config.model.backbone}, images"
    threads = execution.threads if device.type == "cpu" else 1
    with path.open("wb") as file, _one_thread_each():
        header = {"descr": "<f2", "fortran_order": False, "shape": (count, *width)}
        np.lib.format.write_array_header_1_0(file, header)
        there = 0
        for start in starts:
            rows = min(_BATCH, count - start)
            if (content := parts.take(start, 2 * rows * math.prod(width))) is None:
                break
            file.write(content)
            there += 1
        todo = starts[there:]
        computed = in_threads(work, todo, what, threads=threads, together=4 * threads, each=_BATCH, total=count)
        for start, features in zip(todo, computed, strict=True):
            if not np.isfinite(features).all():
                raise DataError(
                    f"{config.model.weights}: features of {domain.name} are not finite numbers of float16: these "
                    "weights do not fit model.encoder='frozen'"
                )
            content = features.tobytes()
            file.write(content)
            parts.keep(start, content)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give each thread whole batches: a convolution split among threads may round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _forward(
    config: TrialConfig, encoder: nn.Module, images: np.ndarray, device: torch.device, start: int
) -> np.ndarray:
    """(B, 1 + 2V, D) float16 of the images from `start` on."""
    pixels = torch.from_numpy(np.array(images[start : start + _BATCH])).to(device)
    bf16 = config.optim.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        rows = [pooled(encoder(view).float()).half() for view in _views(config, pixels, start)]
    return torch.stack(rows, dim=1).cpu().numpy()


def _views(config: TrialConfig, pixels: Tensor, start: int) -> Iterator[Tensor]:
    views, size, kept = VIEWS["trained"], config.data.image_size, config.model.frozen_views
    yield views.evaluation(pixels, size=size)
    for name, view in (("weak", views.weak), ("strong", views.strong)):
        for number in range(kept):
            drawn = generator(0, f"features_{name}_{number}", start)
            yield view(pixels, config.views, size=size, generator=drawn)
