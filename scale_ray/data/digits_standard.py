"""The benchmark `digits_standard`: the published files of MNIST, MNIST-M, USPS and SVHN, as ROOT/domain/class/image.

A domain is the training split of its data set. Files are downloaded to ROOT/downloads, where torchvision's classes look
for them, and may be put there by hand. Images of MNIST, USPS and SVHN are stored as BMP without a palette: its bytes
follow from the pixels, and from no version of a compressor, so that the digest of a domain is the same wherever it was
made. Those of MNIST-M are PNGs already and are stored as they are.
"""

import hashlib
import io
import logging
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from scale_ray.config import ConfigError
from scale_ray.data.benchmarks import BENCHMARKS, DataError, canonical_domain, check_benchmark
from scale_ray.data.image_folder import list_images
from scale_ray.data.work import progress
from scale_ray.errors import shown

logger = logging.getLogger(__name__)

NAME = "digits_standard"
DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Published:
    """A file as it is published.

    Attributes:
        path: below ROOT/downloads.
        urls: where it is; the first that answers is taken.
        md5: of its content (hex).
    """

    path: str
    urls: tuple[str, ...]
    md5: str


# Of the authors (http://yaroslav.ganin.net), and the copy of pytorch-adapt. The package names this md5, and so does
# google-deepmind/dm_nevis for the authors' link.
MNISTM = Published(
    "mnist_m.tar.gz",
    (
        "https://cornell.box.com/shared/static/jado7quprg6hzzdubvwzh9umr75damwi",
        "https://drive.google.com/uc?export=download&id=0B_tExHiYS-0veklUZHFYT19KYjg&confirm=t",
    ),
    "859df31c91afe82e80e5012ba928f279",
)

# Of files whose sha256 is published, by TensorFlow Datasets for SVHN and by many for MNIST: checked besides the md5.
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
}


class Stored(NamedTuple):
    """A domain that `get` has stored, or found.

    Attributes:
        domain: its name.
        images: how many it has.
        new: whether it was not there before.
    """

    domain: str
    images: int
    new: bool


def get(benchmark: str, root: Path, domains: Sequence[str] = ()) -> Iterator[Stored]:
    """Download and store domains, one after another. What is there already is neither downloaded nor stored again.

    Args:
        benchmark: `digits_standard`; the others must be brought.
        root: the folder for `--root`; it is made where it is missing.
        domains: names; all of the benchmark if empty.

    Raises:
        ConfigError: the benchmark is another, or has no such domain.
        DataError: a file cannot be downloaded, is not the published one, or the root cannot be written.
    """
    entry = check_benchmark(benchmark)
    if benchmark != NAME:
        raise ConfigError(f"{benchmark} cannot be downloaded, only {NAME} can; where it comes from: {entry.source}")
    wanted = [canonical_domain(benchmark, domain) for domain in domains] or list(entry.domains)
    for domain in wanted:
        folder = root / domain
        new = not folder.exists()
        if new:
            with _written(root):
                for file in published_files(domain):
                    _fetch(domain, file, root / DOWNLOADS)
                _store(_READ[domain](root / DOWNLOADS), domain, root)
        yield Stored(domain, sum(map(len, list_images(folder).values())), new)


def published_files(domain: str) -> list[Published]:
    """The files that a domain is made of."""
    from torchvision.datasets import MNIST, SVHN, USPS

    if domain == "mnist":
        return [
            Published(f"MNIST/raw/{name}", tuple(mirror + name for mirror in MNIST.mirrors), md5)
            for name, md5 in MNIST.resources
        ]
    if domain == "mnistm":
        return [MNISTM]
    url, name, md5 = {"usps": USPS, "svhn": SVHN}[domain].split_list["train"]
    return [Published(name, (url,), md5)]


def _fetch(domain: str, file: Published, downloads: Path) -> None:
    """Download a file that is missing or is not the published one.

    Raises:
        DataError: it cannot be downloaded; the message says where from, and where to put it by hand.
    """
    from torchvision.datasets.utils import check_integrity, download_url

    path = downloads / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not check_integrity(path, file.md5):
        state = "damaged or incomplete" if path.exists() else "missing"
        if path.exists():
            logger.warning("%s is %s: downloading it again", shown(path), state)
        reasons = []
        for url in file.urls:
            try:
                download_url(url, path.parent, path.name, file.md5)
                break
            except (OSError, RuntimeError, HTTPException) as error:
                reasons.append(f"{url}: {_reason(error)}")
        else:
            raise DataError(
                f"{domain}: {shown(path)} is {state} and cannot be downloaded ({'; '.join(reasons)}): store what one "
                "of these URLs gives elsewhere as this file, and run again"
            )
    if path.name in SHA256 and _sha256(path) != SHA256[path.name]:
        raise DataError(f"{domain}: {shown(path)} is not the published file (its sha256 is another one): delete it")


def _reason(error: Exception) -> str:
    """Why, in one line."""
    cause = getattr(error, "reason", error)  # of a URLError, where the name or the connection failed
    return str(getattr(cause, "strerror", None) or error).partition("\n")[0] or type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Class, name and content of each image.
Files = Iterable[tuple[int, str, bytes]]


def _store(files: Files, domain: str, root: Path) -> None:
    """Write the images of a domain. Its folder appears when it is complete."""
    unfinished = root / f".{domain}.unfinished"  # of a process that has ended, where it is there
    shutil.rmtree(unfinished, ignore_errors=True)
    classes = BENCHMARKS[NAME].classes or ()
    for name in classes:
        (unfinished / name).mkdir(parents=True)
    for label, name, content in progress(files, BENCHMARKS[NAME].images[domain], f"storing {domain}"):
        (unfinished / classes[label] / name).write_bytes(content)
    unfinished.rename(root / domain)


def _mnist(downloads: Path) -> Files:
    from torchvision.datasets import MNIST

    for unpacked in (downloads / "MNIST" / "raw").glob("*-ubyte"):
        unpacked.unlink()  # torchvision would take it unchecked, and a process may have ended while it was written
    found = MNIST(downloads, train=True, download=True)
    return _bitmaps(found.data.numpy(), found.targets.numpy())


def _usps(downloads: Path) -> Files:
    from torchvision.datasets import USPS

    found = USPS(downloads, train=True)
    return _bitmaps(found.data, np.array(found.targets))


def _svhn(downloads: Path) -> Files:
    from torchvision.datasets import SVHN

    found = SVHN(downloads, split="train")
    return _bitmaps(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels)


def _bitmaps(images: np.ndarray, labels: np.ndarray) -> Files:
    """Images (N, H, W) or (N, H, W, 3), named by their place in the published file."""
    for place, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        content = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(content, "BMP")
        yield int(label), f"{place:05}.bmp", content.getvalue()


def _mnistm(downloads: Path) -> Files:
    folder = "mnist_m/mnist_m_train"
    with tarfile.open(downloads / MNISTM.path) as archive:
        listed = archive.extractfile(f"{folder}_labels.txt")
        assert listed is not None
        labels = dict(line.split() for line in listed.read().decode().splitlines())
    # Once from begin to end: what is compressed cannot be read backwards without reading it all again.
    with tarfile.open(downloads / MNISTM.path) as archive:
        for member in archive:
            name = member.name.removeprefix(f"{folder}/")
            if name in labels:
                image = archive.extractfile(member)
                assert image is not None
                yield int(labels[name]), name, image.read()


_READ: dict[str, Callable[[Path], Files]] = {"mnist": _mnist, "mnistm": _mnistm, "usps": _usps, "svhn": _svhn}


@contextmanager
def _written(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{shown(root)}: cannot be written ({error.strerror or error}): check its permissions and the free space"
        ) from error
