"""What lies beside the images and is not used: it is counted, named, and in nobody's way."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from image_trees import TWO_DOMAINS, open_all, write_tree
from PIL import Image

from scale_ray.config import Catalogue, Place
from scale_ray.data.benchmarks import BENCHMARKS, DataError
from scale_ray.data.check import Finding, check_data
from scale_ray.data.decoded import domain_names, open_domains, prepare
from scale_ray.data.unused import DANGLING, FORMAT, NO_CLASS, SPECIAL, SUBFOLDER, count_unused, unused_files
from scale_ray.data.warn import forget_warnings

pytestmark = pytest.mark.usefixtures("own_cache")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def check(root: Path) -> list[Finding]:
    return check_data("image_folder", root=root).problems


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TWO_DOMAINS)


def test_images_that_are_not_used_are_counted_by_reason(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    cat = root / "photo" / "cat"
    for name in ("a.DNG", "b.txt", "c.txt"):
        (cat / name).write_bytes(b"x")
    (cat / "more").mkdir()
    (cat / "more" / "d.jpg").write_bytes(b"x")
    (cat / "e.jpg").symlink_to(root / "gone.jpg")
    first, _ = open_all(root)
    assert len(first.images) == 5
    assert warnings(caplog) == [
        "photo: 5 files are not used: 3 of formats that are not read (.dng .txt), 1 in a subfolder of a class, "
        f"1 dangling link; `scale-ray data check image_folder --root {root} --all` names them"
    ]
    ignored = [problem for problem in check(root) if problem.kind == "ignored"]
    assert [problem.message for problem in ignored] == [
        f"{cat}/a.DNG: not used: .dng is not read: convert to PNG",
        f"{root}/photo: 2 files (such as cat/b.txt, cat/c.txt): not used: no image by its suffix (.txt)",
        f"{cat}/e.jpg: not used: a link that leads nowhere",
        f"{cat}/more/d.jpg: not used: in a folder within a class folder: move up into the class folder",
    ]


def test_files_of_a_folder_without_labels_are_counted_too(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo = root / "photo"
    (photo / "a.CR2").write_bytes(b"x")
    (photo / "cat" / "notes.txt").write_bytes(b"x")
    catalogue = Catalogue(domains={"phone": Place(images=str(photo), labelled=False)})
    (domain,) = open_domains("image_folder", ["phone"], root=catalogue, resize=8, corrupt="error")
    assert len(domain.images) == 5
    assert warnings(caplog) == [
        "phone: 2 files are not used: 2 of formats that are not read (.cr2 .txt); "
        "`scale-ray data check image_folder --root CATALOGUE --all` names them"
    ]


def test_each_file_has_its_reason_and_nothing_hidden_is_counted(root: Path) -> None:
    photo = root / "photo"
    (photo / "beside.jpg").write_bytes(b"x")
    (photo / "lost class").symlink_to(root / "gone")
    os.mkfifo(photo / "cat" / "pipe.jpg")
    (photo / "cat" / "deep" / "er").mkdir(parents=True)
    (photo / "cat" / "empty").mkdir()
    (photo / "cat" / "deep" / "er" / "a.txt").write_bytes(b"x")
    (photo / "cat" / "loop").symlink_to(root)
    (photo / "cat" / "self.jpg").symlink_to(photo / "cat" / "self.jpg")
    (photo / "cat" / "bare").write_bytes(b"x")
    for hidden in (".DS_Store", "._0.jpg", "Thumbs.db", "desktop.ini", "deep/.x.jpg"):
        (photo / "cat" / hidden).write_bytes(b"x")
    for folder in ("__MACOSX", "lost+found", "@eaDir", "cat/@eaDir", ".git"):
        (photo / folder).mkdir()
        (photo / folder / "0.jpg").write_bytes(b"x")
    unused = unused_files(photo)
    assert unused == {
        "beside.jpg": NO_CLASS,
        "cat/bare": FORMAT,
        "cat/deep/er/a.txt": SUBFOLDER,
        "cat/loop": SUBFOLDER,
        "cat/pipe.jpg": SPECIAL,
        "cat/self.jpg": DANGLING,
        "lost class": DANGLING,
    }
    assert count_unused(unused) == (
        "7 files are not used: 1 of a format that is not read (none), 2 in subfolders of classes, 1 not in a class "
        "folder, 1 not a regular file, 2 dangling links"
    )
    assert {domain.classes for domain in open_all(root)} == {("cat", "dog")}


def test_a_warning_is_given_once_a_run(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "photo" / "cat" / "a.dng").write_bytes(b"x")
    (root / "sketch" / "cat" / "a.dng").write_bytes(b"x")
    for _ in range(3):
        open_all(root)
    assert [line.partition(":")[0] for line in warnings(caplog)] == ["photo", "sketch"]
    forget_warnings()  # as the next run does
    open_all(root)
    assert len(warnings(caplog)) == 4


# Folders that are no domains


def test_what_systems_leave_in_the_root_blames_no_domain(root: Path) -> None:
    (root / "__MACOSX" / "photo" / "cat").mkdir(parents=True)
    (root / "__MACOSX" / "photo" / "cat" / "._0.jpg").write_bytes(b"x")
    (root / "lost+found").mkdir()
    (root / "scripts" / "old").mkdir(parents=True)
    (root / "scripts" / "old" / "resize.py").write_text("")
    (root / "empty").mkdir()
    problems = check(root)
    assert {problem.kind for problem in problems} == {"ignored"}
    assert [problem.message for problem in problems] == [
        f"{root / name}: not a domain: no images of classes in it"
        for name in ("__MACOSX", "empty", "lost+found", "scripts")
    ]
    assert not any(problem.stops_training for problem in problems)
    assert domain_names("image_folder", root=root) == ["photo", "sketch"]
    assert [domain.name for domain in prepare("image_folder", root=root, resize=8)] == ["photo", "sketch"]


def test_a_folder_that_is_meant_as_a_domain_is_not_passed_over(root: Path) -> None:
    (root / "phone").mkdir()
    (root / "phone" / "a.HEIC").write_bytes(b"x")
    (root / "tablet" / "cat").mkdir(parents=True)
    kinds = [(problem.kind, problem.message.partition(":")[0]) for problem in check(root) if problem.stops_training]
    assert kinds == [
        ("empty", f"{root}/phone"),
        ("empty", f"{root}/tablet/cat"),
    ]
    assert not [problem for problem in check(root) if "lacks" in problem.message], "healthy domains are not blamed"


def test_a_folder_that_cannot_be_read_is_one_problem_among_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "sketch":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    (problem,) = check(root)
    assert problem.kind == "unreadable"
    assert problem.message == f"{root}/sketch: cannot be read (Permission denied): check the folder's permissions"


# Data on which an accuracy means nothing, or is lost


def test_one_class_is_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"photo": {"cat": 3}, "sketch": {"cat": 3}})
    with pytest.raises(DataError, match=r"root/photo: one class only, 'cat': a classifier needs two") as error:
        open_all(root)
    assert "\n" not in str(error.value)
    assert [problem.kind for problem in check(root)] == ["classes", "classes"]


def test_two_classes_of_two_images_are_enough(tmp_path: Path) -> None:
    tiny = {"cat": 2, "dog": 2}
    first, second = open_all(write_tree(tmp_path / "root", {"photo": tiny, "sketch": tiny}))
    assert (len(first.images), len(second.images)) == (4, 4)


def test_values_of_12_bits_in_16_are_said_once_a_domain_and_left_as_they_are(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cat = root / "photo" / "cat"
    for number, value in enumerate((4095, 4095, 4096)):
        (cat / f"{number}.jpg").unlink()
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(cat / f"{number}.png")
    for run in (1, 2):  # decoded, then from the cache
        forget_warnings()
        photo, _ = open_all(root)
        open_all(root)
        assert photo.images[:3, 0, 0, 0].tolist() == [15, 15, 16]
        assert len(warnings(caplog)) == run
        assert warnings(caplog)[-1].startswith(
            "photo: 2 images are nearly black (such as cat/0.png): of 16 bits a value"
        )
    (dark,) = (problem for problem in check(root) if problem.kind == "dark")
    assert dark.names == ("cat/0.png", "cat/1.png")
    assert not dark.stops_training


def test_git_lfs_pointers_are_named_as_such(root: Path) -> None:
    pointer = root / "photo" / "cat" / "0.jpg"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match=r"cat/0\.jpg: unreadable image \(a Git LFS pointer .*run `git lfs pull`\)"):
        open_all(root)
    (problem,) = check(root)
    assert problem.message == f"{pointer}: a Git LFS pointer and not the image: run `git lfs pull`"


def test_differences_from_what_is_published_are_said_once_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tree(tmp_path / "root", {"photo": dict.fromkeys(BENCHMARKS["pacs"].classes or (), 1)})
    for _ in range(2):
        open_all(root, "photo", benchmark="pacs")
    assert len(warnings(caplog)) == 1
