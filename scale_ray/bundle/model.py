"""A trained model that predicts images: `scale_ray.load_model(…).predict(…)`."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scale_ray.bundle.contents import Bundle
from scale_ray.bundle.images import AnyImage, images_named, read_pixels
from scale_ray.bundle.predictor import build_predictor
from scale_ray.bundle.table import Prediction, frame_of
from scale_ray.data.pixels import MissingReader, UnreadableImage
from scale_ray.data.views import evaluation_view
from scale_ray.data.work import cpus
from scale_ray.errors import shown
from scale_ray.training.setup import find_device

if TYPE_CHECKING:
    import pandas as pd

BATCH = 64

T = TypeVar("T")
R = TypeVar("R")


class Model:
    """A trained model: from images to class probabilities, as the trial's own evaluation makes them.

    Args:
        bundle: what was trained.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        threads: by which images are decoded; None: one for each CPU of this process.

    Attributes:
        classes: names of the K classes, in the order of probabilities.
        config: of the trial.
        record: id of the trial's record.
        threads: by which images are decoded.
        network: the `Predictor`, on its device.

    Raises:
        ConfigError: the device does not exist, or the encoder cannot be built here.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None):
        self.classes, self.config, self.record = bundle.classes, bundle.config, bundle.record
        self._device, self.threads = find_device(device), threads or cpus()
        predictor = build_predictor(bundle.config, bundle.state)
        self.network = predictor.to(self._device).to(memory_format=torch.channels_last)

    def predict(self, images: AnyImage | Iterable[AnyImage], batch: int = BATCH) -> "pd.DataFrame":
        """The two most probable classes of each image.

        Args:
            images: one or several: paths, folders, patterns and URLs; images of Pillow; arrays (H, W, 3) of uint8, or
                (N, H, W, 3); tensors (3, H, W) or (N, 3, H, W), uint8 or floats in [0, 1].
            batch: images that the network sees together.

        Returns:
            One row an image: path, class, probability, second_class, second_probability, problem. `problem` says why
            an image cannot be read; its other columns are empty then.

        Raises:
            DataError: a path stands for no image.
        """
        return frame_of(self.rows(_listed(images), batch))

    def probabilities(self, images: AnyImage | Iterable[AnyImage], batch: int = BATCH) -> np.ndarray:
        """Class probabilities (N, K), float64, in the order of `classes`; not a number where an image is unreadable.

        Args: as in `predict`.
        """
        found = [
            np.full(len(self.classes), np.nan) if isinstance(each, UnreadableImage) else each
            for _, each in self._probabilities(_listed(images), batch)
        ]
        return np.stack(found) if found else np.empty((0, len(self.classes)))

    def rows(self, images: Sequence[AnyImage], batch: int = BATCH) -> Iterator[Prediction]:
        """The prediction of each image, in order; paths are those of files."""
        for image, found in self._probabilities(images, batch):
            path = shown(image) if isinstance(image, str | Path) else None
            if isinstance(found, UnreadableImage):
                yield Prediction(path, None, None, None, None, str(found))
                continue
            first, second = (-found).argsort(kind="stable")[:2].tolist()
            yield Prediction(
                path, self.classes[first], float(found[first]), self.classes[second], float(found[second]), None
            )

    def _probabilities(
        self, images: Sequence[AnyImage], batch: int
    ) -> Iterator[tuple[AnyImage, np.ndarray | UnreadableImage]]:
        """Each image with its probabilities (K,), or with why it has none."""
        pixels = in_advance(self._pixels, images, threads=self.threads, ahead=2 * batch + self.threads)
        pairs = zip(images, pixels, strict=True)
        while together := list(itertools.islice(pairs, batch)):
            readable = [found for _, found in together if not isinstance(found, UnreadableImage)]
            predicted = iter(self._predict_batch(np.stack(readable)).numpy() if readable else ())
            for image, found in together:
                yield image, found if isinstance(found, UnreadableImage) else next(predicted)

    def _pixels(self, image: AnyImage) -> np.ndarray | UnreadableImage:
        try:
            return read_pixels(image, self.config.data)
        except UnreadableImage as error:
            return error
        except MissingReader as error:
            return UnreadableImage(str(error))

    @torch.inference_mode()
    def _predict_batch(self, pixels: np.ndarray) -> Tensor:
        """Probabilities (B, K) of decoded images (B, 3, R, R), float64 on the CPU."""
        images = torch.from_numpy(pixels).to(self._device)
        logits = self.network(evaluation_view(images, size=self.config.data.image_size))
        return logits.double().cpu().softmax(dim=1)


def in_advance(work: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int) -> Iterator[R]:
    """Yield `work(item)` for each item, in order. Threads work on up to `ahead` items that nobody has taken yet."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _listed(images: AnyImage | Iterable[AnyImage]) -> list[AnyImage]:
    """One or several images as a list; of folders and patterns, their images; of batches, the images in them."""
    one = isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray | Tensor) and images.ndim <= 3)
    listed: list[AnyImage] = []
    for image in [images] if one else images:  # type: ignore[union-attr]
        if isinstance(image, str | Path):
            listed += images_named([image]).paths
        else:
            listed.append(image)  # type: ignore[arg-type]
    return listed
