"""`scale-ray data`: check, prepare, list, cache and clear."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, command, refused, subprocess_command, truncate
from PIL import Image

from scale_ray.data.manifest import read_about
from scale_ray.store import Store


def test_data_check_of_a_clean_folder(images: Path) -> None:
    outcome = command("data", "check", "image_folder", "--root", images)
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        "image_folder: 32 images (Art 16, Real World 16)",
        "0 problems, 0 of them stop training",
    ]


def test_data_check_lists_all_problems(own_images: Path) -> None:
    broken = [truncate(own_images / "Art" / "cat" / "3.jpg"), truncate(own_images / "Real World" / "dog" / "7.jpg")]
    (own_images / "Art" / "dog" / "notes.txt").write_text("")
    outcome = command("data", "check", "image_folder", "--root", own_images)
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    assert [line.startswith(f"unreadable: {path}: ") for line, path in zip(lines, broken, strict=False)] == [True, True]
    assert lines[2].startswith(f"ignored: {own_images}/Art/dog/notes.txt")
    assert lines[3:] == [
        "image_folder: 32 images (Art 16, Real World 16)",
        "3 problems, 2 of them stop training",
    ]


def test_data_check_has_one_line_for_many_files_and_names_each_on_request(own_images: Path) -> None:
    for number in range(5):
        (own_images / "Art" / "dog" / f"{number}.txt").write_text("")
    check = ("data", "check", "image_folder", "--root", own_images)
    line, *rest = command(*check).out.splitlines()
    assert line == (
        f"ignored: {own_images}/Art: 5 files (such as dog/0.txt, dog/1.txt, dog/2.txt): not used: no image by its "
        "suffix (.txt)"
    )
    assert rest[-1] == "1 problem, 0 of them stop training"
    *lines, _, last = command(*check, "--all").out.splitlines()
    assert lines == [
        f"ignored: {own_images}/Art/dog/{number}.txt: not used: no image by its suffix (.txt)" for number in range(5)
    ]
    assert last == rest[-1]


def test_what_is_only_good_to_know_is_no_problem(own_images: Path) -> None:
    Image.new("RGBA", (40, 40), (200, 0, 0, 100)).save(own_images / "Art" / "dog" / "a.png")
    outcome = command("data", "check", "image_folder", "--root", own_images)
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        f"read: {own_images}/Art/dog/a.png: what is transparent becomes white",
        "image_folder: 33 images (Art 17, Real World 16)",
        "0 problems, 0 of them stop training",
    ]


def test_data_check_draws_a_sheet(images: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    outcome = command("data", "check", "image_folder", "--root", images, "--sheet", sheet)
    assert outcome.status == 0
    assert f"sheet of 16 images: {sheet}" in outcome.out.splitlines()
    assert sheet.read_text().count("data:image/jpeg;base64,") == 16
    refused(command("data", "check", "image_folder", "--root", images, "--sheet", "x.pdf"), "a sheet is FILE.html or")


def test_data_check_needs_torch_for_a_sheet_alone(images: Path) -> None:
    """A check of many images should need the memory of its images, not that of a training."""
    code = (
        "import sys; from scale_ray.cli import main; sys.argv = ['scale-ray', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, "data", "check", "image_folder", "--root", str(images)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_data_check_of_a_root_that_is_a_file(own_images: Path) -> None:
    path = own_images / "Art" / "cat" / "0.jpg"
    refused(command("data", "check", "image_folder", "--root", path), f"--root {path}: a file and not a folder")


def test_data_check_of_a_folder_without_domains(tmp_path: Path) -> None:
    outcome = command("data", "check", "image_folder", "--root", tmp_path)
    assert outcome.status == 1
    assert outcome.out.startswith(f"missing: {tmp_path}: no domain folders in it")


def test_data_prepare_says_where_and_how_much(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path))
    outcome = command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert outcome.status == 0
    # 16 x 3 x 100 x 100 bytes a domain
    assert outcome.out.splitlines() == [
        "Art: 16 images of 100 x 100 px, 0.5 MiB",
        "Real World: 16 images of 100 x 100 px, 0.5 MiB",
        f"image_folder: 2 domains, 0.9 MiB, in {tmp_path}",
    ]
    assert "decoding Art to 100 px: 16" in outcome.err
    again = command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert again.out == outcome.out
    assert "decoding" not in again.err


def test_data_prepare_stops_at_an_unreadable_image(own_images: Path) -> None:
    path = truncate(own_images / "Art" / "cat" / "3.jpg")
    refused(command("data", "prepare", "image_folder", "--root", own_images), f"{path}: unreadable image")


@pytest.mark.parametrize("name", ["check", "prepare"])
def test_data_of_no_benchmark_or_no_root_is_refused(name: str) -> None:
    refused(command("data", name, "pcas"), "unknown benchmark 'pcas'", "did you mean 'pacs'?")
    refused(command("data", name, "pacs"), "pacs: where are the images?", "--root FOLDER")


def test_data_list_names_every_benchmark() -> None:
    outcome = command("data", "list")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == [
        "digits",
        "digits_standard",
        "office_home",
        "pacs",
        "image_folder",
    ]


@pytest.fixture
def filled_cache(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two decoded domains of 16 x 3 x 100 x 100 bytes, and what someone else keeps in that folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SCALE_RAY_CACHE", str(cache))
    command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    (cache / "mine").mkdir()
    (cache / "mine" / "thesis.tex").write_text("all of it")
    return cache


def test_data_cache_shows_what_lies_there(filled_cache: Path) -> None:
    (filled_cache / "decoded" / ".abc.unfinished").mkdir()
    outcome = command("data", "cache")
    assert outcome.status == 0
    head, *rows, total = outcome.out.splitlines()
    assert re.split("  +", head.strip()) == ["kind", "holds", "size", "last used"]
    parts = [re.split("  +", row.strip()) for row in rows]
    assert sorted(part[:3] for part in parts) == [
        ["decoded images", "image_folder Art, 100 px", "0.5 MiB"],
        ["decoded images", "image_folder Real World, 100 px", "0.5 MiB"],
        ["file digests", "of 2 folders", "0.0 MiB"],
        ["unfinished", "decoded images", "0.0 MiB"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", part[3]) for part in parts)
    assert total.endswith(f" MiB in {filled_cache}")


def test_data_cache_says_when_it_was_last_used(filled_cache: Path, images: Path) -> None:
    for path in (filled_cache / "decoded").iterdir():
        os.utime(path, (1e9, 1e9))  # 2001
    assert command("data", "cache").out.count(" 2001-09-") == 2
    command("data", "prepare", "image_folder", "--root", images, "--resize", "100")
    assert " 2001-09-" not in command("data", "cache").out


def test_data_clear_deletes_what_is_ours_and_idle(filled_cache: Path) -> None:
    kept, old = (filled_cache / "decoded" / f".abc.{name}" for name in ("new", "old"))
    kept.mkdir()
    old.mkdir()
    os.utime(old, (1e9, 1e9))
    (images,) = (path for path in filled_cache.glob("decoded/*/images.npy") if "Art" in read_about(path.parent))
    mapped = np.load(images, mmap_mode="r")
    before = mapped.sum()
    outcome = command("data", "clear", "--yes")
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        f"deleted 0.9 MiB in {filled_cache}",
        "left: 1 that a running process may be making",
    ]
    assert mapped.sum() == before  # a trial that runs reads on
    assert [path.name for path in (filled_cache / "decoded").iterdir()] == [kept.name]
    assert list((filled_cache / "file_digests").iterdir()) == []
    assert (filled_cache / "mine" / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_data_clear_asks_first(filled_cache: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(answer))
    outcome = command("data", "clear")
    assert outcome.status == status
    assert f"delete 0.9 MiB in {filled_cache}?" in outcome.out
    assert (len(list((filled_cache / "decoded").iterdir())) == 0) == (status == 0)


def test_data_cache_and_clear_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "none"))
    assert command("data", "cache") == (0, f"0.0 MiB in {tmp_path}/none\n", "")
    assert command("data", "clear") == (0, f"deleted 0.0 MiB in {tmp_path}/none\n", "")
    assert not (tmp_path / "none").exists()


def test_data_check_and_train_agree_on_what_is_no_domain(own_images: Path) -> None:
    (own_images / "__MACOSX" / "Art").mkdir(parents=True)
    (own_images / "lost+found").mkdir()
    (own_images / "notes").mkdir()
    outcome = command("data", "check", "image_folder", "--root", own_images)
    assert outcome.out.splitlines() == [
        *(
            f"ignored: {own_images}/{name}: not a domain: no images of classes in it"
            for name in ("__MACOSX", "lost+found", "notes")
        ),
        "image_folder: 32 images (Art 16, Real World 16)",
        "3 problems, 0 of them stop training",
    ]
    assert command("train", *TINY, "--root", own_images).status == 0


def test_a_root_without_a_benchmark_means_images_of_ones_own(images: Path, tmp_path: Path) -> None:
    assert TINY[:2] == ["--benchmark", "image_folder"]
    outcome = command("train", *TINY[2:], "--root", images, "--store", tmp_path / "store")
    assert outcome.status == 0, outcome.err
    (record,) = Store(tmp_path / "store").records()
    assert record.config.data.benchmark == "image_folder"
    grid = ["--backbone", "lenet", "--weights", "none", "--store", tmp_path / "grid", "--dry-run"]
    outcome = command("ablate", "--root", images, "--pairs", "Art:Real World", *grid)
    assert outcome.status == 0, outcome.err
    refused(command("ablate", "--root", images, *grid), "image_folder has no usual domain pair: name one with --pairs")
    refused(command("ablate", "--benchmark", "digits", "--root", images, "--pairs", "Art:Real World", *grid), "'Art'")


def test_training_says_what_it_does_not_use(own_images: Path) -> None:
    for name in ("a.DNG", "b.txt"):
        (own_images / "Art" / "cat" / name).write_bytes(b"x")
    outcome = subprocess_command("train", *TINY, "--root", own_images)
    assert outcome.status == 0
    said = [line for line in outcome.err.splitlines() if "not used" in line]
    assert said == [
        "Art: 2 files are not used: 2 of formats that are not read (.dng .txt); "
        f"`scale-ray data check image_folder --root {own_images} --all` names them"
    ]


@pytest.mark.parametrize("name", ["train", "ablate"])
def test_names_that_are_not_utf_8_are_refused_in_one_line(own_images: Path, tmp_path: Path, name: str) -> None:
    latin = "caf\udce9"  # as Python holds the byte E9
    try:
        (own_images / "Art" / "cat" / "0.jpg").rename(own_images / "Art" / "cat" / f"{latin}.jpg")
    except OSError:
        pytest.skip("this file system refuses such names")
    pair = ["--source", "Art", "--target", "Real World"] if name == "train" else ["--pairs", "Art:Real World"]
    start = [name, "--benchmark", "image_folder", *pair, "--store", tmp_path / "store"]
    outcome = command(*start, "--root", own_images)
    refused(outcome, f"{own_images}/Art/cat/caf\\xe9.jpg: its name is not UTF-8: rename it")
    assert "hashing" not in outcome.err
    (tmp_path / latin).mkdir()
    refused(command(*start, "--root", tmp_path / latin), f"--root {tmp_path}/caf\\xe9: this path is not UTF-8")
    renamed = [text.replace("Real World", latin) if isinstance(text, str) else text for text in start]
    refused(command(*renamed, "--root", own_images), "caf\\", "is not a domain")
    (tmp_path / f"{latin}.pth").write_bytes(b"x")
    weights = ["--backbone", "lenet", "--weights", tmp_path / f"{latin}.pth"]
    (own_images / "Art" / "cat" / f"{latin}.jpg").rename(own_images / "Art" / "cat" / "0.jpg")
    refused(command(*start, "--root", own_images, *weights), f"model.weights: {tmp_path}/caf\\xe9.pth", "not UTF-8")


def test_one_class_and_a_target_that_is_the_source_are_refused_before_anything_is_read(own_images: Path) -> None:
    (own_images / "link").symlink_to(own_images / "Art")
    outcome = command("train", *TINY, "--root", own_images, "--target", "link")
    refused(outcome, f"--root {own_images}: all 16 images of target 'link' are also in source 'Art'", "choose another")
    for domain in ("Art", "Real World"):
        for path in (own_images / domain / "dog").iterdir():
            path.unlink()
        (own_images / domain / "dog").rmdir()
    outcome = command("train", *TINY, "--root", own_images)
    refused(outcome, f"{own_images}/Art: one class only, 'cat': a classifier needs two")
    assert "hashing" not in outcome.err


def test_odd_names_train_and_are_recorded(own_images: Path, tmp_path: Path) -> None:
    odd = "it's 100% #1\n\u732b"
    root = own_images.rename(own_images.with_name(odd))
    for domain, new in (("Art", "None"), ("Real World", odd)):
        for label, other in (("cat", "nan"), ("dog", odd)):
            (root / domain / label).rename(root / domain / other)
        (root / domain).rename(root / new)
    store = tmp_path / "store"
    outcome = command("train", *TINY, "--root", root, "--source", "None", "--target", odd, "--store", store)
    assert outcome.status == 0, outcome.err
    (record,) = Store(store).records()
    assert record.result is not None
    assert record.result.classes == [odd, "nan"]
    assert record.result.images == {"None": 16, odd: 16}
