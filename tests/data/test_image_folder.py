"""Folders of images: labels by name, errors that name the place, and a cache that nothing can spoil."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_trees import TWO_DOMAINS, open_all, truncate, write_tree
from PIL import Image

from scale_ray.config import ConfigError
from scale_ray.data import domain_files, manifest
from scale_ray.data.benchmarks import BENCHMARKS, DataError
from scale_ray.data.cache import cache_folder
from scale_ray.data.check import check_data
from scale_ray.data.decoded import domain_digest
from scale_ray.data.decoding import _write_header

pytestmark = pytest.mark.usefixtures("own_cache")


# What is read


def test_labels_are_ranks_of_class_names_in_ascii_order(tmp_path: Path) -> None:
    tree = {"photo": {"ant": 1, "Zebra": 2, "bee_2": 1}, "sketch": {"bee_2": 1, "Zebra": 1, "ant": 2}}
    photo, sketch = open_all(write_tree(tmp_path / "root", tree))
    assert photo.classes == sketch.classes == ("Zebra", "ant", "bee_2")
    assert photo.labels.tolist() == [0, 0, 1, 2]
    assert sketch.labels.tolist() == [0, 1, 1, 2]
    assert photo.images.shape == (4, 3, 8, 8)
    assert (photo.images.dtype, photo.labels.dtype) == (np.uint8, np.int64)
    assert photo.skipped == ()
    # Green carries the class's name, blue the number: images and labels are in step.
    wanted = [[sum(map(ord, "photo")) % 256, sum(map(ord, name)) % 256, 40 * n] for name, n in
              (("Zebra", 0), ("Zebra", 1), ("ant", 0), ("bee_2", 0))]  # fmt: skip
    assert np.abs(photo.images.mean(axis=(2, 3)) - wanted).max() < 4


def test_neither_order_of_writing_nor_place_nor_time_matters(tmp_path: Path) -> None:
    here = write_tree(tmp_path / "here", TWO_DOMAINS)
    there = write_tree(tmp_path / "far" / "away", TWO_DOMAINS, backwards=True)
    for path in there.rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))
    for name in TWO_DOMAINS:
        assert domain_digest("image_folder", name, root=here) == domain_digest("image_folder", name, root=there)
    for ours, theirs in zip(open_all(here), open_all(there), strict=True):
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert (ours.images == theirs.images).all()


@pytest.mark.parametrize("change", ["content", "class", "name", "added"])
def test_digest_changes_with_what_matters(tmp_path: Path, change: str) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    before = domain_digest("image_folder", "photo", root=root)
    image = root / "photo" / "cat" / "2.jpg"
    if change == "content":
        Image.new("RGB", (20, 12), "white").save(image)
    elif change == "class":
        image.rename(root / "photo" / "dog" / "2.jpg")
    elif change == "name":
        image.rename(image.with_name("3.jpg"))
    else:
        shutil.copy(image, image.with_name("3.jpg"))
    assert domain_digest("image_folder", "photo", root=root) != before


@pytest.mark.parametrize("folder", ["Real World", "Real_World", "RealWorld", "real_world", "realworld", "real"])
def test_office_home_folders_by_any_spelling(tmp_path: Path, folder: str) -> None:
    classes = dict.fromkeys(BENCHMARKS["office_home"].classes or (), 1)
    root = write_tree(tmp_path / "root", {folder: classes})
    (domain,) = open_all(root, "Real World", benchmark="office_home")
    assert (domain.name, len(domain.images), len(domain.classes)) == ("Real_World", 65, 65)


def test_suffixes_in_any_case_and_nothing_hidden(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"photo": {"cat": 1, "dog": 1}})
    cat = root / "photo" / "cat"
    for number, name in enumerate(("a.JPG", "b.Png", "c.WEBP", "d.jpeg", ".hidden.png")):
        form = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(Path(name).suffix.lower(), Path(name).suffix[1:])
        Image.new("RGB", (9, 9), (number, 0, 0)).save(cat / name, format=form)
    (cat / "notes.txt").write_text("x")
    (cat / ".DS_Store").write_text("x")
    (root / "photo" / ".cache").mkdir()
    (root / "photo" / "readme").write_text("x")
    (photo,) = open_all(root, "photo")
    assert len(photo.images) == 6
    ignored = [problem.message for problem in check_data("image_folder", root=root).problems]
    assert len(ignored) == 2
    assert f"{cat / 'notes.txt'}: not used" in ignored[0]
    assert f"{root / 'photo' / 'readme'}: not used" in ignored[1]


# Unreadable images among others


def test_unreadable_image_stops_with_path_and_remedy(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    broken = root / "sketch" / "dog" / "1.jpg"
    truncate(broken)
    with pytest.raises(DataError, match=r"truncated.*scale-ray data check") as caught:
        open_all(root)
    assert str(broken) in str(caught.value)
    assert not [path for path in (cache_folder() / "decoded").iterdir() if path.name.startswith(".")], "leftovers"


def test_skip_leaves_out_and_lists(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    whole = open_all(root)[1]
    truncate(root / "sketch" / "dog" / "1.jpg")
    (root / "sketch" / "dog" / "3.jpg").write_bytes(b"")
    for _ in range(2):  # decoded, then from the cache
        sketch = open_all(root, corrupt="skip")[1]
        assert sketch.skipped == ("dog/1.jpg", "dog/3.jpg")
        assert sketch.labels.tolist() == [0, 1, 1]
        assert (sketch.images == whole.images[[0, 1, 3]]).all()
    with pytest.raises(DataError, match=r"dog/1\.jpg"):
        open_all(root, corrupt="error")


def test_a_class_must_not_vanish_by_skipping(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    truncate(root / "sketch" / "cat" / "0.jpg")
    with pytest.raises(DataError, match="every image of class 'cat' is unreadable"):
        open_all(root, corrupt="skip")


# Folders that cannot be used


def test_no_root() -> None:
    with pytest.raises(ConfigError, match=r"pacs.*--root FOLDER"):
        open_all(None, "photo", benchmark="pacs")


def test_missing_root_names_the_nearest(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", TWO_DOMAINS)
    with pytest.raises(ConfigError, match="imagse: no such folder: did you mean 'images'"):
        open_all(tmp_path / "imagse")


def test_missing_domain_lists_what_is_there(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    with pytest.raises(
        ConfigError, match=r"no folder for domain 'sketsh': did you mean 'sketch'.*holds: photo, sketch"
    ):
        open_all(root, "photo", "sketsh")
    with pytest.raises(ConfigError, match="no folder for domain 'cartoon'"):
        open_all(root, "cartoon", benchmark="pacs")


def test_two_folders_for_one_domain(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"Real World": {"Bed": 1}, "real": {"Bed": 1}})
    with pytest.raises(ConfigError, match="'Real World' and 'real' are both domain 'Real_World'"):
        open_all(root, "real", benchmark="office_home")


def test_class_sets_that_differ_are_listed_per_domain(tmp_path: Path) -> None:
    tree = {"photo": {"cat": 1, "dog": 1}, "sketch": {"cat": 1, "Dog": 1}, "spare": {"owl": 1}}
    root = write_tree(tmp_path / "root", tree)
    with pytest.raises(DataError, match="photo lacks 'Dog'; sketch lacks 'dog'; 'Dog' and 'dog' differ in upper"):
        open_all(root)
    open_all(root, "photo")  # a domain that is not used cannot be in the way


def test_classes_other_than_the_published_ones(tmp_path: Path) -> None:
    classes = dict.fromkeys(BENCHMARKS["pacs"].classes or (), 1)
    changed = {**classes, "zebra": 1}
    del changed["dog"], changed["horse"]
    root = write_tree(tmp_path / "root", {"photo": classes, "sketch": changed})
    with pytest.raises(DataError, match="not pacs's: sketch lacks 'dog', 'horse' and also has 'zebra'"):
        open_all(root, benchmark="pacs")


def test_class_without_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"photo": {"cat": 1, "dog": 0}, "sketch": {"cat": 1, "dog": 1}})
    with pytest.raises(DataError, match="photo/dog: no image of class 'dog': add some"):
        open_all(root)


def test_a_folder_above_the_one_that_has_the_class_folders(tmp_path: Path) -> None:
    """`studio/cat/0.png` beside `phone/0.png`: the class folders are those of studio."""
    write_tree(tmp_path / "root" / "all", {"studio": {"cat": 1, "dog": 1}})
    (tmp_path / "root" / "all" / "a cache").mkdir()  # neither has images of a class
    (tmp_path / "root" / "all" / "phone").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "root" / "all" / "phone" / "a.png")
    with pytest.raises(
        DataError, match="all/studio: its images lie in folders within it, such as cat: if these are"
    ) as e:
        open_all(tmp_path / "root", "all")
    assert str(e.value).endswith("/all/studio; if not, move the images up")


def test_domain_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "root" / "photo").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "root" / "photo" / "a.png")
    with pytest.raises(DataError, match="no class folders"):
        open_all(tmp_path / "root", "photo")


def test_counts_other_than_published_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classes = dict.fromkeys(BENCHMARKS["office_home"].classes or (), 20)
    root = write_tree(tmp_path / "root", {"Art": classes})
    with caplog.at_level(logging.WARNING):
        open_all(root, "Art", benchmark="office_home")
    assert "Art/Alarm_Clock: 20 images, published: 74" in caplog.text
    assert "more: `scale-ray data check office_home` lists all" in caplog.text


# scale-ray data check


def test_check_lists_everything(tmp_path: Path) -> None:
    classes = dict.fromkeys(BENCHMARKS["pacs"].classes or (), 1)
    root = write_tree(tmp_path / "root", {"photo": classes, "sketch": {**classes, "dog": 0, "yak": 1}})
    truncate(root / "photo" / "dog" / "0.jpg")
    (root / "sketch" / "house" / "0.jpg").write_bytes(b"")
    report = check_data("pacs", root=root)
    assert report.images == {"photo": 7, "sketch": 7}
    found = [(problem.kind, problem.message) for problem in report.problems]
    assert [kind for kind, _ in found] == [
        "missing", "missing", "classes", "empty", "unreadable", "unreadable", "count", "count"
    ]  # fmt: skip
    messages = [message for _, message in found]
    assert "'art_painting'" in messages[0]
    assert messages[2].startswith("classes are not pacs's: sketch also has 'yak': rename")
    assert str(root / "sketch" / "dog") in messages[3]
    assert str(root / "photo" / "dog" / "0.jpg") in messages[4]
    assert "truncated" in messages[4]
    assert messages[5] == f"{root / 'sketch' / 'house' / '0.jpg'}: the file is empty"
    assert messages[6] == "photo: 7 images, published: 1670"
    assert [problem.stops_training for problem in report.problems] == [True] * 6 + [False] * 2
    assert not cache_folder().exists()


# The cache


def test_arrays_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    for _ in range(2):
        images = open_all(root)[0].images
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_a_second_opening_decodes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    first = open_all(root)
    assert "decoding photo to 8 px: 5" in capsys.readouterr().err
    second = open_all(root)
    assert capsys.readouterr().err == ""
    assert (first[0].images == second[0].images).all()


@pytest.mark.parametrize("way", ["written in place", "replaced", "folders swapped"])
def test_other_pixels_of_the_same_size_and_time_of_modification_are_seen(tmp_path: Path, way: str) -> None:
    """As `exiftool -P`, `cp -p` and `rsync -t` leave them."""
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    image, other = root / "photo" / "cat" / "0.jpg", root / "photo" / "dog" / "0.jpg"
    other.write_bytes(image.read_bytes()[:-2] + b"??")
    for path in (image, other):
        os.utime(path, ns=(10**18, 10**18))
    before, seen = domain_digest("image_folder", "photo", root=root), image.stat()
    if way == "written in place":
        image.write_bytes(other.read_bytes())
        os.utime(image, ns=(10**18, 10**18))
    elif way == "replaced":
        shutil.copy2(other, tmp_path / "new")
        (tmp_path / "new").rename(image)
    else:  # neither file changes, only what their names stand for
        (root / "photo" / "cat").rename(root / "photo" / "away")
        (root / "photo" / "dog").rename(root / "photo" / "cat")
        (root / "photo" / "away").rename(root / "photo" / "dog")
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (seen.st_size, seen.st_mtime_ns)
    found = domain_digest("image_folder", "photo", root=root)
    assert found != before
    shutil.rmtree(cache_folder())
    assert domain_digest("image_folder", "photo", root=root) == found


def test_unchanged_files_are_not_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    domain_digest("image_folder", "photo", root=root)
    assert "hashing photo: 5" in capsys.readouterr().err
    domain_digest("image_folder", "photo", root=root)
    assert capsys.readouterr().err == ""
    (root / "photo" / "cat" / "0.jpg").write_bytes(b"another")
    domain_digest("image_folder", "photo", root=root)
    assert "hashing photo: 1\n" in capsys.readouterr().err


def digests_of_0_1_0(known: dict[str, list]) -> str:
    return json.dumps({name: [size, changed, "0" * 64] for name, (size, changed, *_) in known.items()})


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '{"cat/0.jpg": 5}',
        "[" * 99_999,
        digests_of_0_1_0,
    ],
    ids=["cut", "list", "number", "nested", "older"],
)
def test_digests_that_cannot_be_used_are_computed_again(tmp_path: Path, content: str | Callable[[dict], str]) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    before = domain_digest("image_folder", "photo", root=root)
    (kept,) = (cache_folder() / "file_digests").iterdir()
    kept.write_text(content if isinstance(content, str) else content(json.loads(kept.read_bytes())))
    assert domain_digest("image_folder", "photo", root=root) == before
    assert len(json.loads(kept.read_bytes())["cat/0.jpg"]) == 5


def test_images_that_change_while_they_are_read_never_enter_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    image, read = root / "photo" / "dog" / "1.jpg", domain_files.read_bytes
    whole = image.read_bytes()

    def read_late(path: Path) -> bytes:
        Image.new("RGB", (20, 12), "white").save(image)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(domain_files, "read_bytes", read_late)
        with pytest.raises(DataError, match=r"photo/dog/1\.jpg: changed while the images were read: .* run again"):
            open_all(root, "photo")
    assert list((cache_folder() / "decoded").iterdir()) == []
    (white,) = open_all(root, "photo")
    assert (white.images[-1] == 255).all()
    image.write_bytes(whole)
    (photo,) = open_all(root, "photo")
    assert (photo.images[-1] != 255).any()
    assert photo.digest == domain_digest("image_folder", "photo", root=root) != white.digest


def flip_a_byte(path: Path) -> None:
    """Another byte near the end, the same size, and a new time of change, as any program leaves that writes."""
    content, before = bytearray(path.read_bytes()), path.stat()
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "damage", ["shorter", "gone", "nonsense", "flipped image", "flipped label", "no manifest", "no real manifest"]
)
def test_damaged_arrays_are_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    root = write_tree(tmp_path / "root", {"photo": TWO_DOMAINS["photo"]})
    wanted = np.array(open_all(root, "photo")[0].images)
    (stored,) = (cache_folder() / "decoded").iterdir()
    if damage == "shorter":
        os.truncate(stored / "images.npy", 300)
    elif damage == "gone":
        (stored / "labels.npy").unlink()
    elif damage == "nonsense":
        (stored / "skipped.json").write_text("?")
    elif damage == "no manifest":
        (stored / "manifest.json").unlink()
    elif damage == "no real manifest":
        (stored / "manifest.json").write_text("[]")
    else:
        flip_a_byte(stored / {"flipped image": "images.npy", "flipped label": "labels.npy"}[damage])
    (found,) = open_all(root, "photo")
    assert (found.images == wanted).all()
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert "is damaged" in caplog.text
    assert [path.name for path in (cache_folder() / "decoded").iterdir()] == [stored.name]


def test_arrays_that_were_only_touched_are_hashed_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tree(tmp_path / "root", {"photo": TWO_DOMAINS["photo"]})
    open_all(root, "photo")
    (stored,) = (cache_folder() / "decoded").iterdir()
    os.utime(stored / "images.npy", (1, 1))
    hashed = []
    sha256 = manifest._sha256
    monkeypatch.setattr(manifest, "_sha256", lambda path: hashed.append(path.name) or sha256(path))
    for _ in range(2):
        open_all(root, "photo")
    assert hashed == ["images.npy"]
    assert "is damaged" not in caplog.text


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    open_all(root, "photo")
    (stored,) = (cache_folder() / "decoded").iterdir()
    shutil.rmtree(stored)
    old, new = stored.with_name(f".{stored.name}.old"), stored.with_name(f".{stored.name}.new")
    old.mkdir()
    new.mkdir()
    os.utime(old, (time.time() - 1e6,) * 2)
    open_all(root, "photo")
    assert sorted(path.name for path in stored.parent.iterdir()) == sorted([stored.name, new.name])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"file/cache.*cannot be written.*SCALE_RAY_CACHE"):
        open_all(root)


def test_two_processes_race_to_the_same_arrays(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"photo": {"cat": 150, "dog": 150}})
    code = (
        "import hashlib, pathlib, sys; from scale_ray.data.decoded import open_domains;"
        "d, = open_domains('image_folder', ['photo'], root=pathlib.Path(sys.argv[1]), resize=64, corrupt='error');"
        "print(d.images.shape[0], hashlib.sha256(d.images.tobytes() + d.labels.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(root)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (racer.communicate()[0] for racer in racers)
    assert first == second
    assert first.startswith("300 ")
    assert len(list((cache_folder() / "decoded").iterdir())) == 1


def test_header_has_one_length_for_any_count(tmp_path: Path) -> None:
    lengths = set()
    for count in (0, 7, 15_588, 10**9):
        with (tmp_path / "header").open("wb") as file:
            _write_header(file, count, 256)
            lengths.add(file.tell())
    assert len(lengths) == 1
