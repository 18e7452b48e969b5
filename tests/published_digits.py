"""Tiny files in the formats of the published digits, and a server on loopback that gives them instead of the real ones.

The image at place I of a file has the class I % 10. Its pixels are those of `pixels`, so that every test knows them.
"""

import bz2
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import MNIST, SVHN, USPS

from scale_ray.data import digits_standard

COUNT = 20
SIDES = {"mnist": 28, "mnistm": 32, "usps": 16, "svhn": 32}
GREY = ("mnist", "usps")


def pixels(domain: str, place: int) -> np.ndarray:
    """(S, S, 3) uint8: black, with a box for each 1 among the binary digits of the place; white, or of a colour."""
    image = np.zeros((SIDES[domain], SIDES[domain], 3), np.uint8)
    for bit in range(5):
        if place >> bit & 1:
            image[2:14, 3 * bit : 3 * bit + 2] = 255 if domain in GREY else (250, 120, 30)
    return image


class Server:
    """What lies in a folder, over HTTP.

    Attributes:
        folder: its files.
        url: where they are.
        asked: the paths that were asked for, in order. torchvision asks twice in a row, first for redirections: once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        handler = partial(_Handler, self.asked, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, asked: list[str], *arguments: Any, **options: Any) -> None:
        self._asked = asked
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        if self._asked[-1:] != [self.path]:
            self._asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Write the files, serve them, and let the package and torchvision believe that they are the published ones."""
    folder.mkdir()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in _files()}
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in _files()}
    for name, content in _files():
        (folder / name).write_bytes(content)
    server = Server(folder)

    def published(name: str) -> list[str]:
        return [f"{server.url}/{name}", name, md5[name]]

    mnist = [name for name in md5 if name.endswith("ubyte.gz")]
    archive = digits_standard.MNISTM.path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MNIST, "mirrors", [f"{server.url}/"])
        patch.setattr(MNIST, "resources", [(name, md5[name]) for name in mnist])
        patch.setattr(USPS, "split_list", {"train": published("usps.bz2")})
        patch.setattr(SVHN, "split_list", {"train": published("train_32x32.mat")})
        served = replace(digits_standard.MNISTM, urls=(f"{server.url}/{archive}",), md5=md5[archive])
        patch.setattr(digits_standard, "MNISTM", served)
        patch.setattr(digits_standard, "SHA256", {name: sha256[name] for name in digits_standard.SHA256})
        try:
            yield server
        finally:
            server.stop()


def _files() -> Iterator[tuple[str, bytes]]:
    """Name and content of each published file."""
    labels = np.arange(COUNT, dtype=np.uint8) % 10
    digits = np.stack([pixels("mnist", place)[..., 0] for place in range(COUNT)])
    for split, part in (("train", slice(None)), ("t10k", slice(2))):
        yield f"{split}-images-idx3-ubyte.gz", _idx(digits[part])
        yield f"{split}-labels-idx1-ubyte.gz", _idx(labels[part])
    yield "usps.bz2", bz2.compress("".join(map(_libsvm, range(COUNT))).encode())
    yield "train_32x32.mat", _mat(labels)
    yield digits_standard.MNISTM.path, _tar()


def _idx(values: np.ndarray) -> bytes:
    """http://yann.lecun.com/exdb/mnist: two zeros, 8 for unsigned bytes, the dimensions, their sizes, the values."""
    sizes = np.array(values.shape, ">u4").tobytes()
    return gzip.compress(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes(), mtime=0)


def _libsvm(place: int) -> str:
    """A line of https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets: class from 1, and values from -1 to 1."""
    values = pixels("usps", place)[..., 0].ravel() / 127.5 - 1  # -1 or 1
    return f"{place % 10 + 1} {' '.join(f'{number}:{value:g}' for number, value in enumerate(values, 1))}\n"


def _mat(labels: np.ndarray) -> bytes:
    """http://ufldl.stanford.edu/housenumbers: images along the last axis, and 10 for the digit 0."""
    content = io.BytesIO()
    images = np.stack([pixels("svhn", place) for place in range(COUNT)], axis=3)
    scipy.io.savemat(content, {"X": images, "y": np.where(labels == 0, 10, labels)[:, None]})
    return b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:]  # without the time of writing


def _tar() -> bytes:
    """mnist_m.tar.gz: a folder and a list of each split."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for split, count in (("train", COUNT), ("test", 2)):
            names = [f"{place:08}.png" for place in range(count)]
            for place, name in enumerate(names):
                _add(archive, f"mnist_m/mnist_m_{split}/{name}", png(place))
            lines = "".join(f"{name} {place % 10}\n" for place, name in enumerate(names))
            _add(archive, f"mnist_m/mnist_m_{split}_labels.txt", lines.encode())
    return gzip.compress(gzip.decompress(content.getvalue()), mtime=0)


def png(place: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels("mnistm", place)).save(content, "PNG")
    return content.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
