"""Images that are twice there: the same file, or a near duplicate, within a domain and across domains.

Near duplicates are found in two steps. A difference hash (whether a cell of an 8 x 8 grid is brighter than its
neighbour; https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html) costs one comparison of two
numbers for a pair of images. It is met by many drawings that only have the same outline, so that pairs which it leaves
are compared by the correlation of their small grey images. ImageHash has such hashes as objects, and no search for
pairs; what it would save are the few lines of `_hashes`.
"""

import os
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from scale_ray.data.check.findings import Finding
from scale_ray.data.check.images import SIDE, Images
from scale_ray.data.work import in_threads
from scale_ray.errors import shown

# Of 9,991 images of PACS and 1,800 of Emoji-Photo, 600 were stored again: as JPEG of quality 40, at half the size, at
# 300 px as PNG. All were found with these limits. Of 7e7 pairs of different files, 68 were within them.
_BITS_APART = 10
_CORRELATION = 0.97

# A cell is brighter than its neighbour by more than this; compression changes flat cells by less.
_BRIGHTER = 2.0

# Images with a smaller standard deviation show nothing to compare.
_FLAT = 2.0

_ROWS, _COLUMNS = 1024, 2048  # of a block of pairs: 20 MB a thread
_AT_ONCE = 8192  # pairs whose correlation is computed together

_LEAK = "accuracy on the target would be measured on images of the training: remove from one of the two"
_NEAR = "look at them: where two are the same picture, accuracy would be measured on images of the training"


def duplicates(images: Images, root: Path | None) -> list[Finding]:
    """What is twice there. An image that is the same file as another is not also its near duplicate.

    Args:
        images: all images.
        root: the folder that holds all domains, if one does: messages name images by their paths in it.
    """

    def path(image: int) -> str:
        return os.path.relpath(images.path(image), root) if root else images.path(image)

    _, contents = np.unique(np.array(images.digests, "S32"), return_inverse=True)
    same, alike = _same_files(images, contents), near_partners(images, contents)
    found: list[Finding | None] = []
    for first, second in combinations(range(len(images.domains)), 2):
        where = f"{shown(images.domains[first])} and {shown(images.domains[second])}"
        for pairs, sign, text in (
            (same, "=", f"same files in {where}: {_LEAK}"),
            (alike, "~", f"near duplicates in {where}: {_NEAR}"),
        ):
            names = [f"{path(a)} {sign} {path(b)}" for a, b in _across(images, pairs, first, second)]
            found.append(_finding("leak", text, str(root or ""), names))
    for domain, folder in enumerate(images.folders):
        copies: list[str] = []
        wrong: list[str] = []
        for image, partner in _partnered(images, same, domain, domain):
            names = copies if images.labels[image] == images.labels[partner] else wrong
            names.append(f"{images.names[image]} = {images.names[partner]}")
        near = [f"{images.names[a]} ~ {images.names[b]}" for a, b in _partnered(images, alike, domain, domain)]
        found.append(_finding("labels", "the same file in two classes: remove it from the wrong one", folder, wrong))
        found.append(_finding("copies", "the same file, which counts twice: remove one", folder, copies))
        found.append(_finding("alike", "near duplicates in one domain", folder, near))
    return [finding for finding in found if finding]


def near_partners(images: Images, contents: np.ndarray) -> np.ndarray:
    """A near duplicate of each image in each domain: (N, D), index of an image, or -1.

    Of two that are alike in one domain, only the later has the other as its partner.

    Args:
        images: all images.
        contents: (N,) the same number for the same files; they are not near duplicates of each other.
    """
    domains = images.domain_of
    partners = np.full((len(domains), len(images.domains)), -1, np.int32)
    compared = np.flatnonzero(_deviations(images.thumbs) >= _FLAT)
    if len(compared) < 2:
        return partners
    hashes = _hashes(images.thumbs[compared])
    blocks = [
        (row, column)
        for row in range(0, len(compared), _ROWS)
        for column in range(0, len(compared), _COLUMNS)
        if column + _COLUMNS > row
    ]
    work = partial(_candidates, compared, hashes, contents)
    for first, second in in_threads(work, blocks, f"comparing {len(compared):,} images, in blocks", together=8):
        _note_alike(images.thumbs, domains, partners, first, second)
    return partners


def _candidates(
    compared: np.ndarray, hashes: np.ndarray, contents: np.ndarray, block: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs in a block whose hashes are close: indices of the earlier and of the later image."""
    rows, columns = hashes[block[0] :][:_ROWS], hashes[block[1] :][:_COLUMNS]
    apart = np.bitwise_count(rows[:, None, 0] ^ columns[None, :, 0])
    row, column = np.nonzero(apart <= _BITS_APART)
    apart = apart[row, column] + np.bitwise_count(rows[row, 1] ^ columns[column, 1])
    close = (apart <= _BITS_APART) & (row + block[0] < column + block[1])
    first, second = compared[row[close] + block[0]], compared[column[close] + block[1]]
    different = contents[first] != contents[second]
    return first[different], second[different]


def _note_alike(
    thumbs: np.ndarray, domains: np.ndarray, partners: np.ndarray, first: np.ndarray, second: np.ndarray
) -> None:
    """Enter which of the pairs are near duplicates.

    An image that has a partner in a domain needs no other. Pairs are therefore taken some at a time, in an order in
    which every image comes early, and those that are no longer needed are dropped: of images that all look alike, every
    pair is a candidate.
    """
    first, second = _needed(domains, partners, first, second)
    order = np.random.default_rng(0).permutation(len(first))
    first, second = first[order], second[order]
    while len(first):
        some, others = first[:_AT_ONCE], second[:_AT_ONCE]
        alike = _correlations(thumbs[some], thumbs[others]) >= _CORRELATION
        some, others = some[alike], others[alike]
        partners[others, domains[some]] = some
        across = domains[some] != domains[others]
        partners[some[across], domains[others[across]]] = others[across]
        first, second = _needed(domains, partners, first[_AT_ONCE:], second[_AT_ONCE:])


def _needed(
    domains: np.ndarray, partners: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of which one image has no partner yet in the other's domain."""
    across = domains[first] != domains[second]
    needed = (partners[second, domains[first]] < 0) | (across & (partners[first, domains[second]] < 0))
    return first[needed], second[needed]


def _hashes(thumbs: np.ndarray) -> np.ndarray:
    """(N, 2) uint64 of (N, SIDE * SIDE): which cells are brighter than their left and their upper neighbours."""
    cells = thumbs.reshape(-1, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(2, 4), dtype=np.float32)
    bits = np.zeros((len(thumbs), 2, 64), bool)
    bits[:, 0, :56] = (np.diff(cells, axis=2) > _BRIGHTER).reshape(len(thumbs), 56)
    bits[:, 1, :56] = (np.diff(cells, axis=1) > _BRIGHTER).reshape(len(thumbs), 56)
    return np.packbits(bits, axis=2).view(np.uint64)[..., 0]


def _deviations(thumbs: np.ndarray) -> np.ndarray:
    """(N,) standard deviation of each, without 8 bytes for each of their pixels at once."""
    parts = [thumbs[start:][:_AT_ONCE].std(axis=1, dtype=np.float32) for start in range(0, len(thumbs), _AT_ONCE)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _correlations(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) correlation of each of (K, SIDE * SIDE) with its other."""
    some, others = (each - each.mean(axis=1, keepdims=True, dtype=np.float32) for each in (some, others))
    products = np.einsum("ij,ij->i", some, others)
    return products / np.sqrt(np.einsum("ij,ij->i", some, some) * np.einsum("ij,ij->i", others, others))


def _same_files(images: Images, contents: np.ndarray) -> np.ndarray:
    """As `near_partners`, for images that are the same file: the first of them in each domain."""
    partners = np.full((len(contents), len(images.domains)), -1, np.int32)
    several = np.flatnonzero(np.bincount(contents, minlength=1)[contents] > 1).tolist()
    first: dict[tuple[int, int], int] = {}
    for image in several:
        first.setdefault((int(contents[image]), int(images.domain_of[image])), image)
    for image in several:
        for domain in range(len(images.domains)):
            partner = first.get((int(contents[image]), domain), image)
            if partner != image:
                partners[image, domain] = partner
    return partners


def _across(images: Images, partners: np.ndarray, first: int, second: int) -> list[tuple[int, int]]:
    """The images of one domain with a partner in the other, from the side that has more of them."""
    ours, theirs = _partnered(images, partners, first, second), _partnered(images, partners, second, first)
    return ours if len(ours) >= len(theirs) else [(partner, image) for image, partner in theirs]


def _partnered(images: Images, partners: np.ndarray, domain: int, other: int) -> list[tuple[int, int]]:
    """The images of a domain with a partner in the other, and that partner."""
    found = np.flatnonzero((images.domain_of == domain) & (partners[:, other] >= 0))
    return list(zip(found.tolist(), partners[found, other].tolist(), strict=True))


def _finding(kind: str, text: str, folder: str, names: list[str]) -> Finding | None:
    return Finding(kind, text, folder, tuple(names)) if names else None
