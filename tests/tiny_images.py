"""Images that a tiny trial learns in a second: root/domain/class/image.png, 16 px, three textures with noise."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("checks", "columns", "rows")

LOOKS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda pixels: pixels,
    "inverted": lambda pixels: 255 - pixels,
    "dark": lambda pixels: pixels // 3,
}


def make_images(root: Path, domains: Sequence[str], counts: Sequence[int]) -> None:
    """Write the images of these domains, names in LOOKS, with so many images of each class."""
    numbers = np.random.default_rng(0)
    rows, columns = np.indices((16, 16)) // 2
    textures = ((rows + columns) % 2, columns % 2, rows % 2)
    for domain in domains:
        for name, texture, count in zip(CLASSES, textures, counts, strict=True):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = numbers.integers(0, 100, (16, 16, 3), dtype=np.uint8)
                pixels += (100 * texture[:, :, None]).astype(np.uint8)
                Image.fromarray(LOOKS[domain](pixels)).save(folder / f"{index:02}.png")
