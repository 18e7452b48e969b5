"""Domains that travel: a store holds a domain's images in shards, and every node fetches them when a trial needs them.

    STORE/data/<key>/00000000       images one after the other from this number on, about 256 MiB in all
    STORE/data/<key>/00000000.json  of this shard: its sha256, which images it has, what was left out
    STORE/data/<key>/rows.parquet   name, label and sha256 of every image of the domain
    STORE/data/<key>/domain.json    written last, when the domain is whole: kind, classes, sha256 of all of the above

There are two kinds. `pixels` are decoded and resized, and a node copies them into its cache. `files` are the files as
they were, which each node decodes: where these are much smaller. Both give the same arrays bit for bit, and a node
checks what it fetches: names, labels and digests of images against the digest in the plan of the study, files against
these digests, and pixels against the sha256 of their shard.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from scale_ray.data.benchmarks import DataError
from scale_ray.data.decoding import DecodedFolder, Decoding, decode, unreadable
from scale_ray.data.domain_files import DomainFiles, content_digest
from scale_ray.data.pixels import DECODER_VERSION, MissingReader, UnreadableImage, decode_image
from scale_ray.data.room import make_room
from scale_ray.data.work import cpus, in_threads
from scale_ray.errors import shown
from scale_ray.store import Store

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

Kind = Literal["pixels", "files"]
KINDS: tuple[Kind, ...] = ("pixels", "files")

# Bytes of a shard: large enough that requests do not count, small enough that a process holds some in memory.
SHARD_BYTES = 256 * 2**20

# On a network of more than 2 Gbit/s, a node of 8 cores has copied pixels sooner than it has decoded files
# (benchmarks/results/data_travels.md). Files travel where pixels would fill stores and disks: beyond this size.
PIXELS_AT_MOST = 50 * 10**9

_SAMPLE = 64  # images whose files are read to estimate the size of all
_MOST_THREADS = 4  # of which each holds a shard, and on its way to a bucket several copies of it
_FETCHED_AT_ONCE = 2


class Shard(BaseModel):
    """One shard.

    Attributes:
        first, last: it has the images first to last - 1 of the domain.
        sha256: hex, of its bytes.
        lengths: of `files`, the bytes of each; None of pixels, which all have the same.
        skipped: of pixels, name -> reason of the images that are unreadable and not in it.
        dark: of pixels, the names of the nearly black images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    last: int
    sha256: str
    lengths: list[int] | None = None
    skipped: dict[str, str] = {}
    dark: list[str] = []


class StoredDomain(BaseModel):
    """A domain in a store, as `domain.json` has it.

    Attributes:
        about: what it is, as text.
        kind: what the shards hold.
        classes: names; empty without labels.
        in_folders: see `content_digest`.
        rows: sha256 (hex) of rows.parquet.
        shards: in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    kind: Kind
    classes: list[str]
    in_folders: bool
    rows: str
    shards: list[Shard]


@dataclass(frozen=True)
class Part:
    """What makes one shard.

    Attributes:
        digests: sha256 (hex) of the images of this shard.
        decoding: how they become pixels.
        kind: what the shard holds.
        first, last: it gets the images first to last - 1.
    """

    digests: Sequence[str]
    decoding: Decoding
    kind: Kind
    first: int
    last: int


@dataclass(frozen=True)
class Pushed:
    """What a push did: the kind, the number of images, and bytes and number of shards that were written by it."""

    kind: Kind
    images: int
    shards: int
    written: int


def is_stored(store: Store, domain: str, digest: str, decoding: Decoding) -> bool:
    """Whether a store has a domain of this content, whole and of one of the kinds.

    Raises:
        DataError: it has, with unreadable images left out, and `decoding.corrupt` is `error`.
    """
    for kind in KINDS:
        content = store.files.read(f"{_folder(digest, decoding, kind)}/domain.json")
        if content is not None and (stored := _parsed(StoredDomain, content)) is not None:
            if decoding.corrupt == "error":
                _refuse_unreadable(domain, stored.shards)
            return True
    return False


def _refuse_unreadable(domain: str, shards: Iterable[Shard]) -> None:
    for shard in shards:
        for image, reason in shard.skipped.items():
            raise unreadable(shown(f"{domain}/{image}"), reason)


# Runs `write_part` on each part and gives the results in order.
Runner = Callable[[DomainFiles, Sequence[Part], Store, str], Iterable[tuple[Shard, int]]]


def in_this_process(
    files: DomainFiles, parts: Sequence[Part], store: Store, folder: str
) -> Iterator[tuple[Shard, int]]:
    """A `Runner`: threads, of which each holds one shard."""
    threads = min(cpus(), _MOST_THREADS)
    return in_threads(
        lambda part: write_part(files, part, store, folder),
        parts,
        f"storing {shown(files.name)}, images",
        threads=threads,
        together=threads,
        each=parts[0].last - parts[0].first,
        total=len(files.names),
    )


def push(
    files: DomainFiles,
    benchmark: str,
    decoding: Decoding,
    store: Store,
    *,
    kind: Kind | None = None,
    run: Runner = in_this_process,
) -> Pushed:
    """Put a domain into a store. What an interrupted push has left there is not written again.

    Args:
        files: the domain.
        benchmark: of which it is, for the description.
        decoding: how images become pixels.
        store: where it goes, below `data/`.
        kind: what travels; None: see `PIXELS_AT_MOST`.
        run: makes the shards.

    Raises:
        DataError: an image cannot be read.
        StoreError: the store cannot be written to.
    """
    digests = files.digests()
    kind = kind or _smaller(files, decoding)
    folder = _folder(files.content_digest(digests), decoding, kind)
    store.files.make_folders([folder])
    store.files.remove_temporaries(folder)
    parts = list(_parts(files, digests, decoding, kind))
    done = list(run(files, parts, store, folder))
    rows = _rows(files, digests)
    store.files.write(f"{folder}/rows.parquet", rows)
    stored = StoredDomain(
        about=decoding.about(benchmark, files.name) if kind == "pixels" else f"{benchmark} {files.name}, files",
        kind=kind,
        classes=list(files.classes),
        in_folders=files.listing is not None,
        rows=hashlib.sha256(rows).hexdigest(),
        shards=[shard for shard, _ in done],
    )
    store.files.write(f"{folder}/domain.json", stored.model_dump_json().encode())
    return Pushed(kind, len(files.names), len(parts), sum(written for _, written in done))


def write_part(files: DomainFiles, part: Part, store: Store, folder: str) -> tuple[Shard, int]:
    """Write one shard into a folder of a store, unless it is there; return it and how many bytes were written.

    Raises:
        DataError: an image cannot be read.
        StoreError: the store cannot be written to.
    """
    name = f"{folder}/{part.first:08}"
    if (there := store.files.read(f"{name}.json")) is not None:
        shard = _parsed(Shard, there)
        if shard is not None and (shard.first, shard.last) == (part.first, part.last):
            if part.decoding.corrupt == "error":
                _refuse_unreadable(files.name, [shard])
            return shard, 0
    pieces: list[bytes] = []
    lengths: list[int] = []
    skipped: dict[str, str] = {}
    dark: list[str] = []
    for place, digest in zip(range(part.first, part.last), part.digests, strict=True):
        image = files.names[place]
        data = files.read(image)
        found = decode(files, image, data, digest, part.decoding)
        if isinstance(found, UnreadableImage):
            skipped[image] = str(found)
            continue
        pieces.append(data if part.kind == "files" else found.array.tobytes())
        lengths.append(len(data))
        dark += [image] if found.dark else []
    content = b"".join(pieces)
    pieces.clear()  # the memory of a shard while it is written
    shard = Shard(
        first=part.first,
        last=part.last,
        sha256=hashlib.sha256(content).hexdigest(),
        lengths=lengths if part.kind == "files" else None,
        skipped=skipped,
        dark=dark,
    )
    store.files.write(name, content)
    store.files.write(f"{name}.json", shard.model_dump_json().encode())
    return shard, len(content)


def fetch(store: Store, domain: str, digest: str, decoding: Decoding, into: Path) -> bool:
    """Fill an empty folder of the cache with a domain from a store; return whether the store had it whole.

    What is damaged there, by two reads, is deleted, so that the next study or push puts it there again.

    Args:
        store: may have the domain.
        domain: its name, for messages.
        digest: of its content.
        decoding: how images become pixels.
        into: the folder.

    Raises:
        DataError: the cache has no room.
        StoreError: the store cannot be read.
    """
    for kind in KINDS:
        folder = _folder(digest, decoding, kind)
        try:
            if not _fill_whole(store, folder, domain, digest, decoding, into):
                continue
        except Damaged as damage:
            logger.warning(
                "%s is damaged (%s): it is deleted there", store.files.locate(f"{folder}/{damage.name}"), damage
            )
            store.files.delete_many(f"{folder}/{each}" for each in (damage.name, f"{damage.name}.json", "domain.json"))
            continue
        return True
    return False


class Damaged(Exception):
    """A file of a stored domain is not what was written; `name` is its name."""

    def __init__(self, name: str, reason: str):
        super().__init__(reason)
        self.name = name


def _fill_whole(store: Store, folder: str, domain: str, digest: str, decoding: Decoding, into: Path) -> bool:
    """Fill the folder if the domain is stored; read everything once more where something seems damaged."""
    for again in (True, False):
        content = store.files.read(f"{folder}/domain.json")
        if content is None:
            return False
        try:
            _fill(store, folder, domain, digest, content, decoding, into)
        except Damaged:  # or another driver was just writing it
            for left in into.iterdir():
                left.unlink()
            if not again:
                raise
        else:
            return True
    return False


def _fill(store: Store, folder: str, domain: str, digest: str, content: bytes, decoding: Decoding, into: Path) -> None:
    stored = _parsed(StoredDomain, content)
    if stored is None:
        raise Damaged("domain.json", "it cannot be parsed")
    names, labels, digests = _read_rows(store, folder, stored)
    if content_digest(names, labels, stored.classes, digests, in_folders=stored.in_folders) != digest:
        raise Damaged("rows.parquet", "its rows are those of other images")
    make_room(len(names) * decoding.image_bytes)
    read = partial(_read_shard, store, folder)
    work = in_threads(
        read,
        stored.shards,
        f"fetching {shown(domain)}, shards",
        threads=_FETCHED_AT_ONCE,
        together=_FETCHED_AT_ONCE,
    )
    with DecodedFolder(into, decoding.resize) as written:
        for shard, taken in zip(stored.shards, work, strict=True):
            for image, reason in shard.skipped.items():
                written.skip(image, reason)
            if stored.kind == "pixels":
                written.add(taken, shard.dark)
            else:
                for pixels in _decoded(shard, taken, digests, names, decoding):
                    written.add(pixels, ())
                written.add(b"", shard.dark)
        try:
            written.finish(names, labels, stored.classes)
        except ValueError as error:
            raise Damaged("domain.json", str(error)) from None


def _decoded(
    shard: Shard, content: bytes, digests: Sequence[str], names: Sequence[str], decoding: Decoding
) -> Iterator[bytes]:
    """The pixels of each file of a shard.

    Args:
        digests, names: of all images of the domain.
    """
    assert shard.lengths is not None
    places = [place for place in range(shard.first, shard.last) if names[place] not in shard.skipped]
    spans = list(pairwise(accumulate(shard.lengths, initial=0)))
    if len(places) != len(spans):
        raise Damaged(f"{shard.first:08}", f"it has {len(spans):,} files of {len(places):,} images")

    def decoded(each: tuple[int, tuple[int, int]]) -> bytes:
        place, (start, end) = each
        data = content[start:end]
        if hashlib.sha256(data).hexdigest() != digests[place]:
            raise Damaged(f"{shard.first:08}", f"{names[place]} has other bytes")
        try:
            return decode_image(data, decoding.resize, decoding.fit).tobytes()
        except (UnreadableImage, MissingReader) as error:
            raise DataError(f"{shown(names[place])}: {error}") from error

    with ThreadPoolExecutor(cpus()) as pool:
        yield from pool.map(decoded, zip(places, spans, strict=True))


def _read_shard(store: Store, folder: str, shard: Shard) -> bytes:
    name = f"{shard.first:08}"
    content = store.files.read(f"{folder}/{name}")
    if content is None:
        raise Damaged(name, "it is gone")
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise Damaged(name, "its bytes are not those that were written")
    return content


def _rows(files: DomainFiles, digests: Sequence[str]) -> bytes:
    labels = pa.array([None] * len(files.names) if files.labels is None else files.labels, pa.int32())
    columns = {"name": list(files.names), "label": labels, "sha256": [bytes.fromhex(each) for each in digests]}
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def _read_rows(store: Store, folder: str, stored: StoredDomain) -> tuple[list[str], list[int] | None, list[str]]:
    """Name, label and sha256 (hex) of every image; no labels where they have none."""
    content = store.files.read(f"{folder}/rows.parquet")
    if content is None or hashlib.sha256(content).hexdigest() != stored.rows:
        raise Damaged("rows.parquet", "its bytes are not those that were written" if content else "it is gone")
    table = pq.read_table(io.BytesIO(content))
    names, labels, digests = (table[name].to_pylist() for name in ("name", "label", "sha256"))
    return names, labels if stored.classes else None, [each.hex() for each in digests]


def _parsed(kind: type[M], content: bytes) -> M | None:
    """The object in a JSON file; None where it is damaged."""
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        return None


def _parts(files: DomainFiles, digests: Sequence[str], decoding: Decoding, kind: Kind) -> Iterator[Part]:
    each = _file_bytes(files) if kind == "files" else decoding.image_bytes
    step = max(1, SHARD_BYTES // max(1, each))
    for first in range(0, len(files.names), step):
        last = min(first + step, len(files.names))
        yield Part(digests[first:last], decoding, kind, first, last)


def _smaller(files: DomainFiles, decoding: Decoding) -> Kind:
    pixels = len(files.names) * decoding.image_bytes
    return "files" if pixels > PIXELS_AT_MOST and _file_bytes(files) < decoding.image_bytes else "pixels"


def _file_bytes(files: DomainFiles) -> int:
    """Mean size of the files of some images, evenly spaced."""
    some = files.names[:: max(1, len(files.names) // _SAMPLE)]
    return sum(len(files.read(name)) for name in some) // len(some)


def _folder(digest: str, decoding: Decoding, kind: Kind) -> str:
    return f"data/{decoding.key(digest) if kind == 'pixels' else f'{digest[:32]}-files-v{DECODER_VERSION}'}"
