"""Features of a frozen encoder (model.encoder = frozen): computed once, kept in the store, mapped by every trial.

Of every image of a domain: the evaluation view, V weak and V strong views (V = model.frozen_views), forwarded through
the encoder in evaluation mode and pooled; (N, 1 + 2V, D) float16, as `data.feature_views` reads them. The views' seeds
are fixed: features do not depend on a trial's seed, nor on how many threads have computed them.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.config import RECIPE_VERSION, Execution, TrialConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder, in_threads, open_or_build
from scale_ray.data.decoded import DECODER_VERSION, Domain
from scale_ray.data.feature_views import VIEWS
from scale_ray.data.manifest import check_manifest, write_manifest
from scale_ray.models import BACKBONES, build_encoder
from scale_ray.models.backbones import check_weights, weights_digest
from scale_ray.store import Store
from scale_ray.training.check import content_digest, open_data
from scale_ray.training.seeding import generator
from scale_ray.training.setup import find_device

logger = logging.getLogger(__name__)

# Raise it whenever the same images would give other features.
FEATURES_VERSION = 1

# Images that are forwarded together, and for which a view's parameters are drawn.
_BATCH = 64

_FILE = "features.npy"


def open_inputs(
    config: TrialConfig, targets: Sequence[str], execution: Execution, store: Store | None
) -> tuple[Domain, dict[str, Domain]]:
    """What a trial reads, as `open_data` opens it: where its encoder is frozen, with features in place of images.

    Features that neither this machine nor the store has yet are computed here and put into both. Of several processes
    on a machine one computes and the others wait.

    Args:
        config: names the benchmark, the source, the encoder and the views.
        targets: canonical names.
        execution: where images lie, on which device and by how many threads features are computed.
        store: keeps features for other machines; None keeps them on this one alone.

    Raises:
        ValueError: folders, classes, images or weights are not as they must be.
    """
    source, opened = open_data(config, targets, execution.root)
    if config.model.encoder == "trained":
        return source, opened
    featured = {
        domain.name: replace(domain, images=_features(config, domain, execution, store))
        for domain in (source, *opened.values())
    }
    return featured[source.name], {name: featured[domain.name] for name, domain in opened.items()}


def features_key(config: TrialConfig, domain: str, root: Path | None) -> str:
    """Names the features of a domain by all that determines them; 32 hex digits."""
    model, data = config.model, config.data
    document = {
        "versions": [FEATURES_VERSION, DECODER_VERSION, RECIPE_VERSION],
        "content": content_digest(data.benchmark, domain, root),
        "backbone": model.backbone,
        "weights": weights_digest(model.weights) or model.weights,
        "precision": config.optim.precision,
        "views": config.views.model_dump(mode="json"),
        "kept": model.frozen_views,
        "size": [data.resize, data.image_size],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _features(config: TrialConfig, domain: Domain, execution: Execution, store: Store | None) -> np.ndarray:
    """(N, 1 + 2V, D) float16, mapped into memory."""
    check_weights(config.model.backbone, config.model.weights)
    key = features_key(config, domain.name, execution.root)
    folder = cache_folder() / "features" / key

    def build(unfinished: Path) -> None:
        path = unfinished / _FILE
        if store is None or not _take(store, key, path):
            _compute(config, domain, execution, path)
        write_manifest(unfinished, f"{config.data.benchmark} {domain.name}, {config.model.backbone}")

    features = open_or_build(folder, partial(_load, shape=_shape(config, domain)), build, one_builds=True)
    # Now, for a store may be newer than the cache, and one that cannot be written must not cost what was computed.
    if store is not None and not store.has_features(key):
        content = (folder / _FILE).read_bytes()
        store.write_features(key, content, hashlib.sha256(content).hexdigest())
    return features


def _take(store: Store, key: str, path: Path) -> bool:
    """Copy the store's features here; whether it has them whole. Damaged ones are deleted there."""
    found = store.read_features(key)
    if found is None:
        return False
    content, digest = found
    if hashlib.sha256(content).hexdigest() != digest:
        logger.warning("%s is damaged: features are computed anew", store.features_location(key))
        store.delete_features(key)
        return False
    path.write_bytes(content)
    return True


def _load(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    check_manifest(folder)
    features = np.load(folder / _FILE, mmap_mode="r")
    if features.shape != shape:
        raise ValueError(f"features of shape {features.shape}, {shape} are wanted")
    return np.asarray(features)


def _shape(config: TrialConfig, domain: Domain) -> tuple[int, ...]:
    model = config.model
    return len(domain.images), 1 + 2 * model.frozen_views, BACKBONES[model.backbone].feature_dim


def _compute(config: TrialConfig, domain: Domain, execution: Execution, path: Path) -> None:
    device = find_device(execution.device)
    encoder = build_encoder(config.model.backbone, config.model.weights).to(device).eval()
    if execution.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
    starts = range(0, len(domain.images), _BATCH)
    work = partial(_forward, config, encoder, domain.images, device)
    what = f"features of {domain.name} by {config.model.backbone}"
    threads = execution.threads if device.type == "cpu" else 1
    with path.open("wb") as file, _one_thread_each():
        header = {"descr": "<f2", "fortran_order": False, "shape": _shape(config, domain)}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in in_threads(work, starts, what, threads=threads, together=4 * threads):
            if not np.isfinite(rows).all():
                raise DataError(
                    f"{config.model.weights}: features of {domain.name} are not finite numbers of float16: these "
                    "weights do not fit model.encoder='frozen'"
                )
            file.write(rows.tobytes())


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Threads forward batches of their own: a convolution that is split among threads may round otherwise."""
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
        rows = [encoder(view).float().mean(dim=(2, 3)).half() for view in _views(config, pixels, start)]
    return torch.stack(rows, dim=1).cpu().numpy()


def _views(config: TrialConfig, pixels: Tensor, start: int) -> Iterator[Tensor]:
    views, size, kept = VIEWS["trained"], config.data.image_size, config.model.frozen_views
    yield views.evaluation(pixels, size=size)
    for name, view in (("weak", views.weak), ("strong", views.strong)):
        for number in range(kept):
            drawn = generator(0, f"features_{name}_{number}", start)
            yield view(pixels, config.views, size=size, generator=drawn)
