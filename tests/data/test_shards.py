"""Domains that travel through a store: what is fetched is what the root would have given, or nothing is."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_trees import TWO_DOMAINS, truncate, write_tree
from s3_server import S3Server

from scale_ray.config import Catalogue, Place, Root
from scale_ray.data import shards
from scale_ray.data.benchmarks import DataError
from scale_ray.data.cache import cache_folder
from scale_ray.data.decoded import Domain, domain_digest, open_known
from scale_ray.data.decoding import Decoding
from scale_ray.data.domain_files import DomainFiles, domain_files
from scale_ray.data.shards import Kind, Pushed, is_stored, push
from scale_ray.store import Store

SIZE = 8
IMAGE = 3 * SIZE**2  # bytes
KINDS: tuple[Kind, ...] = ("pixels", "files")
HOW = Decoding(SIZE)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TWO_DOMAINS)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "store", create=True)
    server: S3Server = request.getfixturevalue("s3")
    return Store(server.new_url(), create=True)


@pytest.fixture(autouse=True)
def two_images_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the five images of a domain are three shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * IMAGE)
    monkeypatch.setattr(shards, "_file_bytes", lambda files: IMAGE)


def photo(root: Root) -> DomainFiles:
    return domain_files("image_folder", "photo", root)


def digest_of(root: Root) -> str:
    return domain_digest("image_folder", "photo", root=root)


def opened(digest: str, root: Root | None, store: Store | None, decoding: Decoding = HOW) -> Domain:
    """The domain on a machine with an empty cache."""
    shutil.rmtree(cache_folder() / "decoded", ignore_errors=True)
    return open_known("image_folder", "photo", digest, decoding, root=root, store=store)


def same(one: Domain, other: Domain) -> bool:
    return (
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)  # type: ignore[arg-type]
        and (one.classes, one.files, one.skipped, one.digest)
        == (other.classes, other.files, other.skipped, other.digest)
    )


def written(store: Store) -> dict[str, bytes]:
    """The files of the one domain in a store."""
    (key,) = store.files.folders("data")
    return dict(store.files.read_many(f"data/{key}/{name}" for name in store.files.names(f"data/{key}")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_fetched_is_what_the_root_gives(root: Path, store: Store, kind: Kind, labelled: bool) -> None:
    place = Place(images=str(root / "photo"), labelled=labelled)
    catalogue = Catalogue(domains={"photo": place})
    done = push(photo(catalogue), "image_folder", HOW, store, kind=kind)
    assert (done.kind, done.images, done.shards) == (kind, 5, 3)
    digest = digest_of(catalogue)
    assert same(opened(digest, None, store), opened(digest, catalogue, None))


def test_a_store_of_pixels_holds_these_bytes(root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    assert push(photo(root), "image_folder", HOW, store) == Pushed("pixels", 5, 3, 5 * IMAGE)
    found = {name.rpartition("/")[2]: content for name, content in written(store).items()}
    assert sorted(found) == [
        *("00000000", "00000000.json", "00000002", "00000002.json", "00000004", "00000004.json"),
        *("domain.json", "rows.parquet"),
    ]
    images = opened(digest_of(root), root, None).images
    assert found["00000002"] == images[2:4].tobytes()
    assert json.loads(found["00000002.json"]) == {
        "first": 2,
        "last": 4,
        "sha256": hashlib.sha256(found["00000002"]).hexdigest(),
        "lengths": None,
        "skipped": {},
        "dark": [],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_images_stop_a_push_or_are_left_out_as_by_the_root(root: Path, store: Store, kind: Kind) -> None:
    truncate(root / "photo" / "cat" / "1.jpg")
    with pytest.raises(DataError, match=r"photo/cat/1.jpg: unreadable image .*: replace it, or leave such images out"):
        push(photo(root), "image_folder", HOW, store, kind=kind)
    digest, skip = digest_of(root), Decoding(SIZE, "skip")
    assert not is_stored(store, "photo", digest, HOW)
    push(photo(root), "image_folder", skip, store, kind=kind)
    assert is_stored(store, "photo", digest, skip)
    for refused in (
        lambda: is_stored(store, "photo", digest, HOW),
        lambda: push(photo(root), "image_folder", HOW, store, kind=kind),
    ):
        with pytest.raises(DataError, match=r"photo/cat/1.jpg: unreadable image"):
            refused()
    found = opened(digest, None, store, skip)
    assert found.skipped == ("cat/1.jpg",)
    assert same(found, opened(digest, root, None, skip))
    with pytest.raises(DataError, match=r"photo/cat/1.jpg: unreadable image"):
        opened(digest, None, store, HOW)


def test_an_interrupted_push_goes_on_where_it_was(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shards.write_part

    def stop_at_the_last(files: DomainFiles, part: shards.Part, store: Store, folder: str) -> tuple[shards.Shard, int]:
        if part.first == 4:
            raise KeyboardInterrupt
        return whole(files, part, store, folder)

    monkeypatch.setattr(shards, "write_part", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        push(photo(root), "image_folder", HOW, store)
    digest = digest_of(root)
    assert not is_stored(store, "photo", digest, HOW)
    monkeypatch.setattr(shards, "write_part", whole)
    assert push(photo(root), "image_folder", HOW, store).written == IMAGE
    assert push(photo(root), "image_folder", HOW, store).written == 0
    assert same(opened(digest, None, store), opened(digest, root, None))


@pytest.mark.parametrize("name", ["domain.json", "rows.parquet", "00000002"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_what_is_damaged_is_deleted_and_read_from_the_root(
    root: Path, store: Store, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    push(photo(root), "image_folder", HOW, store)
    digest = digest_of(root)
    expected = opened(digest, root, None)
    (key,) = store.files.folders("data")
    place = f"data/{key}/{name}"
    if damage == "gone":
        store.files.delete(place)
    else:
        content = bytearray(store.files.read(place) or b"")
        content[len(content) // 2] ^= 255
        store.files.write(place, bytes(content))
    assert same(opened(digest, root, store), expected)
    if (name, damage) != ("domain.json", "gone"):
        assert f"{name} is damaged (" in caplog.text
    assert not is_stored(store, "photo", digest, HOW)
    with pytest.raises(ValueError, match="image_folder: where are the images"):
        opened(digest, None, store)
    push(photo(root), "image_folder", HOW, store)
    assert same(opened(digest, None, store), expected)


def test_rows_of_other_labels_are_noticed(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever changes rows.parquet and its sha256 in domain.json cannot change what a study was planned with."""
    store = Store(tmp_path / "store", create=True)
    push(photo(root), "image_folder", HOW, store)
    (root / "photo" / "cat").rename(root / "photo" / "away")
    (root / "photo" / "dog").rename(root / "photo" / "cat")
    (root / "photo" / "away").rename(root / "photo" / "dog")
    digest = "0" * 64
    (key,) = store.files.folders("data")
    Path(store.location, "data", key).rename(Path(store.location, "data", HOW.key(digest)))
    with pytest.raises(DataError, match="domain 'photo' has changed since the study was planned"):
        opened(digest, root, store)
    assert "rows.parquet is damaged (its rows are those of other images)" in caplog.text


def test_a_domain_is_taken_from_the_cache_without_a_look_at_store_or_root(root: Path) -> None:
    digest = digest_of(root)
    expected = opened(digest, root, None)
    shutil.rmtree(root)
    assert same(open_known("image_folder", "photo", digest, HOW, root=root, store=None), expected)


def test_files_travel_where_pixels_take_too_much_and_files_take_less(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = photo(root)
    assert shards._smaller(files, HOW) == "pixels"
    monkeypatch.setattr(shards, "PIXELS_AT_MOST", 5 * IMAGE - 1)
    monkeypatch.setattr(shards, "_file_bytes", lambda files: IMAGE - 1)
    assert shards._smaller(files, HOW) == "files"
    monkeypatch.setattr(shards, "_file_bytes", lambda files: IMAGE)
    assert shards._smaller(files, HOW) == "pixels"


def test_requests_grow_with_shards_and_not_with_images(root: Path, s3: S3Server) -> None:
    store = Store(s3.new_url(), create=True)
    digest = digest_of(root)
    before = s3.requests
    push(photo(root), "image_folder", HOW, store)
    assert s3.requests - before == 1 + 3 * 3 + 2  # .keep; of each shard GET, PUT, PUT; rows and domain
    before = s3.requests
    opened(digest, None, store)
    assert s3.requests - before == 2 + 3  # domain, rows, shards


def test_a_push_under_another_spelling_of_a_class_is_noticed(root: Path, tmp_path: Path) -> None:
    """A label map gives other names to the same content: what a shard calls left out must be what the rows have."""
    truncate(root / "photo" / "cat" / "1.jpg")
    store, skip = Store(tmp_path / "store", create=True), Decoding(SIZE, "skip")
    place = {"photo": Place(images=str(root / "photo"))}
    renamed = Catalogue(domains=place, label_map={"cat": "tiger"})
    push(photo(renamed), "image_folder", skip, store)
    (root / "photo" / "cat").rename(root / "photo" / "tiger")
    digest = digest_of(root)
    (key,) = store.files.folders("data")
    store.files.delete(f"data/{key}/domain.json")  # as if the first push had been interrupted
    push(photo(root), "image_folder", skip, store)
    found = opened(digest, root, store, skip)
    assert found.labels is not None
    assert len(found.images) == len(found.labels) == 4
