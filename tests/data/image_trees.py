"""Folders of one-coloured images, for tests of what is read from folders."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from scale_ray.data.decoded import Domain, open_domains

Tree = dict[str, dict[str, int]]
TWO_DOMAINS: Tree = {"photo": {"cat": 3, "dog": 2}, "sketch": {"cat": 1, "dog": 4}}


def write_tree(root: Path, tree: Tree, *, backwards: bool = False) -> Path:
    """Write `count` one-coloured JPEGs a class; the colour depends on domain, class and number alone."""
    images = [(d, c, n) for d, classes in tree.items() for c, count in classes.items() for n in range(count)]
    for domain, name, number in reversed(images) if backwards else images:
        folder = root / domain / name
        folder.mkdir(parents=True, exist_ok=True)
        colour = (sum(map(ord, domain)) % 256, sum(map(ord, name)) % 256, 40 * number)
        Image.new("RGB", (20, 12), colour).save(folder / f"{number}.jpg", quality=95)
    for domain, classes in tree.items():
        for name in classes:
            (root / domain / name).mkdir(parents=True, exist_ok=True)
    return root


def open_all(
    root: Path | None, *names: str, benchmark: str = "image_folder", corrupt: Literal["error", "skip"] = "error"
) -> list[Domain]:
    return open_domains(benchmark, names or ("photo", "sketch"), root=root, resize=8, corrupt=corrupt)


def truncate(path: Path) -> None:
    """Cut a file in the middle, after filling it with an image large enough to have one."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:2000])
