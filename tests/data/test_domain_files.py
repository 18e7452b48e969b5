"""Domains as people have them: folders without labels, list files, data sets of Hugging Face, names that differ."""

import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import studies
from image_trees import TWO_DOMAINS, open_all, write_tree
from s3_server import S3Server, without_credentials

from scale_ray.config import Catalogue, ConfigError, Place, read_catalogue
from scale_ray.data.benchmarks import DataError
from scale_ray.data.decoded import Domain, domain_digest
from scale_ray.data.domain_files import domain_files
from scale_ray.data.lists import list_domains
from scale_ray.data.locations import versions


def catalogue(label_map: dict[str, str] | None = None, **places: Place) -> Catalogue:
    return Catalogue(domains=places, label_map=label_map or {})


def labelled(path: Path | str, **more: str) -> Place:
    return Place(images=str(path), **more)


def unlabelled(*paths: Path | str) -> Place:
    return Place(images=tuple(map(str, paths)), labelled=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TWO_DOMAINS)


def same(one: Domain, other: Domain) -> bool:
    return bool(
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
        and one.classes == other.classes
    )


# Folders


def test_class_folders_of_a_catalogue_are_those_of_a_root(root: Path) -> None:
    places = catalogue(photo=labelled(root / "photo"), sketch=labelled(root / "sketch"))
    for one, other in zip(open_all(places), open_all(root), strict=True):
        assert (one.digest, one.files) == (other.digest, other.files)
        assert same(one, other)


def test_images_without_labels_lie_at_any_depth(root: Path, tmp_path: Path) -> None:
    phone = tmp_path / "phone"
    (phone / "2024" / "05").mkdir(parents=True)
    (phone / ".thumbnails").mkdir()
    shutil.copy(root / "photo" / "cat" / "0.jpg", phone / "b.JPG")
    shutil.copy(root / "photo" / "cat" / "1.jpg", phone / "2024" / "05" / "a.jpg")
    shutil.copy(root / "photo" / "cat" / "2.jpg", phone / ".thumbnails" / "c.jpg")
    (phone / "notes.txt").write_text("no image")
    (phone / "2024" / "back").symlink_to(phone)
    photo, found = open_all(catalogue(photo=labelled(root / "photo"), phone=unlabelled(phone)), "photo", "phone")
    assert (found.labels, found.classes) == (None, ())
    assert found.files == ("2024/05/a.jpg", "b.JPG")
    assert np.array_equal(found.images, photo.images[[1, 0]])


def test_labels_are_part_of_what_a_domain_is(root: Path) -> None:
    known, unknown = (catalogue(photo=place(root / "photo")) for place in (labelled, unlabelled))
    assert domain_digest("image_folder", "photo", root=known) != domain_digest("image_folder", "photo", root=unknown)


def test_several_folders_are_one_domain(root: Path, tmp_path: Path) -> None:
    cats, dogs = root / "photo" / "cat", root / "photo" / "dog"
    (found,) = open_all(catalogue(both=unlabelled(dogs, cats)), "both")
    assert found.files == ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg")
    other = Path(shutil.copytree(cats, tmp_path / "other" / "cat"))
    with pytest.raises(DataError, match="two of its folders are called 'cat': rename one of them"):
        open_all(catalogue(both=unlabelled(cats, other)), "both")


def test_a_folder_moved_elsewhere_is_the_same_domain(root: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(root / "photo", tmp_path / "moved"))
    here, there = (catalogue(photo=unlabelled(path)) for path in (root / "photo", moved))
    assert domain_digest("image_folder", "photo", root=here) == domain_digest("image_folder", "photo", root=there)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (unlabelled("/no/such/folder"), "domain 'it': /no/such/folder: no such folder: name the folder of its images"),
        (unlabelled("FILE"), "no folder: name the folder of its images"),
        (unlabelled("EMPTY"), "no image in it: name a folder that has some"),
        (labelled("EMPTY"), "no class folders in it"),
        (labelled("/no/list.csv"), "/no/list.csv: no such file: name a list of images"),
    ],
    ids=str,
)
def test_a_place_without_images_is_refused(tmp_path: Path, place: Place, error: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    there = {"FILE": str(tmp_path / "file"), "EMPTY": str(tmp_path / "empty")}
    place = place.model_copy(update={"images": tuple(there.get(each, each) for each in place.images)})
    with pytest.raises((ConfigError, DataError), match=error):
        open_all(catalogue(it=place), "it")


def test_an_unknown_domain_names_the_nearest(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"no domain 'foto': did you mean 'photo'\? the catalogue has: 'photo'"):
        domain_files("image_folder", "foto", catalogue(photo=labelled(root / "photo")))


def test_a_label_map_makes_class_folders_those_of_the_other_domain(root: Path, tmp_path: Path) -> None:
    renamed = Path(shutil.copytree(root, tmp_path / "renamed"))
    (renamed / "sketch" / "cat").rename(renamed / "sketch" / "zat")
    places = catalogue({"zat": "cat"}, photo=labelled(renamed / "photo"), sketch=labelled(renamed / "sketch"))
    for one, other in zip(open_all(places), open_all(root), strict=True):
        assert one.digest == other.digest
        assert same(one, other)
    with pytest.raises(ConfigError, match=r"label_map: two class folders of .*sketch get the same name"):
        open_all(catalogue({"zat": "dog"}, sketch=labelled(renamed / "sketch")), "sketch")


# Lists

ROWS = [(f"photo/{label}/{number}.jpg", label) for label, count in (("cat", 3), ("dog", 2)) for number in range(count)]


def write_list(path: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...] = ("path", "label")) -> Path:
    frame = pd.DataFrame(rows, columns=list(columns))
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(f"{' '.join(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".txt"])
def test_a_list_gives_the_domain_of_its_class_folders(root: Path, suffix: str) -> None:
    (photo,) = open_all(root, "photo")
    (found,) = open_all(catalogue(photo=labelled(write_list(root / f"list{suffix}", ROWS))), "photo")
    assert same(found, photo)
    assert found.files == tuple(path for path, _ in ROWS)


def test_the_order_of_the_rows_and_absolute_paths_change_nothing(root: Path) -> None:
    digests = {
        domain_digest("image_folder", "photo", root=catalogue(photo=labelled(write_list(root / f"{name}.csv", rows))))
        for name, rows in (("one", ROWS), ("other", ROWS[::-1]))
    }
    assert len(digests) == 1
    (photo,) = open_all(root, "photo")
    absolute = [(str(root / path), label) for path, label in ROWS]
    (found,) = open_all(catalogue(photo=labelled(write_list(root / "absolute.csv", absolute))), "photo")
    assert same(found, photo)


def test_a_list_of_several_domains_and_splits_gives_the_rows_that_are_asked_for(root: Path) -> None:
    rows = [(path, label, "photo", "train" if "0" in path else "test") for path, label in ROWS]
    rows += [(path, "", "phone", "") for path, _ in ROWS]
    path = write_list(root / "all.csv", rows, ("path", "label", "domain", "split"))
    assert list_domains(str(path)) == ["phone", "photo"]
    places = catalogue(
        photo=labelled(path, domain="photo"),
        train=labelled(path, domain="photo", split="train"),
        phone=labelled(path, domain="phone"),
    )
    photo, phone = open_all(places, "photo", "phone")
    assert (len(photo.images), phone.labels, len(phone.images)) == (5, None, 5)
    (train,) = open_all(places, "train")
    assert train.files == ("photo/cat/0.jpg", "photo/dog/0.jpg")
    with pytest.raises(ConfigError, match="no row with split 'tain': did you mean 'train'"):
        open_all(catalogue(it=labelled(path, split="tain")), "it")


@pytest.mark.parametrize(
    ("rows", "columns", "error"),
    [
        ([("photo/cat/0.jpg", "cat"), ("photo/dog/0.jpg", "")], ("path", "label"), "1 of 2 rows of 'it' have no label"),
        ([ROWS[0], ROWS[0]], ("path", "label"), "'photo/cat/0.jpg' is there twice: keep one of these rows"),
        (ROWS, ("file", "label"), "no column 'path': .* this one has: 'file', 'label'"),
        ([("", "cat")], ("path", "label"), "1 rows have no path"),
        ([ROWS[0]], ("path", "label"), "one class only, 'cat': a classifier needs two"),
        ([*ROWS, ("photo/dog/7.jpg", "dog")], ("path", "label"), r"photo/dog/7.jpg: cannot be read \(No such file"),
        ([], ("path", "label"), "no image in it: add rows"),
    ],
    ids=str,
)
def test_a_list_that_cannot_be_used_is_refused_in_one_line(
    root: Path, rows: list[tuple[str, ...]], columns: tuple[str, ...], error: str
) -> None:
    path = write_list(root / "list.csv", rows, columns)
    with pytest.raises(DataError, match=error):
        open_all(catalogue(it=labelled(path)), "it")


def test_a_list_that_is_no_table_is_refused_in_one_line(root: Path) -> None:
    (root / "list.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"list.parquet: cannot be read as .parquet \(.*\): check it"):
        open_all(catalogue(it=labelled(root / "list.parquet")), "it")
    (root / "list.txt").write_text("a.jpg 0\nb.jpg\n")
    with pytest.raises(DataError, match="line 2 is not `path label`"):
        open_all(catalogue(it=labelled(root / "list.txt")), "it")


def test_a_list_in_a_linked_folder_may_have_absolute_paths(root: Path, tmp_path: Path) -> None:
    """The folder is elsewhere, so that `..` of the link and of what it leads to are not the same."""
    elsewhere = tmp_path / "some" / "where" / "lists"
    elsewhere.mkdir(parents=True)
    (tmp_path / "lists").symlink_to(elsewhere)
    wrong = tmp_path / "some" / "where" / "root" / "photo" / "cat"
    wrong.mkdir(parents=True)
    shutil.copy(root / "sketch" / "dog" / "3.jpg", wrong / "0.jpg")
    write_list(tmp_path / "lists" / "list.csv", [(str(root / path), label) for path, label in ROWS])
    (found,) = open_all(catalogue(it=labelled(tmp_path / "lists" / "list.csv")), "it")
    (photo,) = open_all(root, "photo")
    assert same(found, photo)


def test_folders_of_images_may_be_named_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "some" / "where").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "some" / "where")
    (tmp_path / "some" / "photos").symlink_to(root / "photo" / "cat")
    (found,) = open_all(catalogue(it=unlabelled(tmp_path / "link" / ".." / "photos", root / "photo" / "dog")), "it")
    assert len(found.images) == 5


def test_a_list_may_have_rows_of_files_and_of_urls(root: Path) -> None:
    system = fsspec.filesystem("memory")
    rows = []
    for number, (path, label) in enumerate(ROWS):
        place = f"memory://mixed/{path}" if number % 2 else path
        if number % 2:
            system.pipe_file(place, (root / path).read_bytes())
        rows.append((place, label))
    places = catalogue(it=labelled(write_list(root / "mixed.csv", rows)))
    (found,) = open_all(places, "it")
    (photo,) = open_all(root, "photo")
    assert sorted(image.tobytes() for image in found.images) == sorted(image.tobytes() for image in photo.images)
    before = domain_digest("image_folder", "it", root=places)
    shutil.copy(root / "sketch" / "dog" / "3.jpg", root / ROWS[0][0])
    after = domain_digest("image_folder", "it", root=places)
    assert before != after
    system.pipe_file(rows[1][0], (root / "sketch" / "dog" / "2.jpg").read_bytes())
    assert domain_digest("image_folder", "it", root=places) not in (before, after)


def test_a_list_or_images_without_credentials_are_refused_in_one_line(root: Path, s3: S3Server) -> None:
    url = s3.new_url()
    path = write_list(root / "remote.csv", [(f"{url}/{path}", label) for path, label in ROWS])
    said = rf"{url}/.*: cannot be read \(Unable to locate credentials\): check the path"
    for place in (path, f"{url}/list.csv"):
        with without_credentials(), pytest.raises(DataError, match=said):
            open_all(catalogue(it=labelled(place)), "it")


def test_versions_of_remote_images_are_asked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fsspec.filesystem("memory")
    urls = [f"memory://together/{number}" for number in range(8)]
    for url in urls:
        system.pipe_file(url, b"content")
    together, asked = threading.Barrier(len(urls)), type(system).info

    def info(*arguments: Any, **options: Any) -> Any:
        together.wait(studies.LIMIT)  # one after the other, they would wait for ever
        return asked(*arguments, **options)

    monkeypatch.setattr(type(system), "info", info)
    assert len(versions(urls, "photo")) == len(urls)


# Tables as programs write them


def classes_of(path: Path, content: bytes | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if content is not None:
        path.write_bytes(content)
    files = domain_files("image_folder", "it", catalogue(it=labelled(path)))
    return files.names, files.classes


CAT, DOG = "photo/cat/0.jpg", "photo/dog/0.jpg"


@pytest.mark.parametrize("ending", [",", ",,", ""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "mark"])
def test_a_csv_may_end_its_lines_with_commas_and_begin_with_a_mark(root: Path, ending: str, mark: bytes) -> None:
    content = f"path,label\r\n{CAT},cat{ending}\r\n\r\n{DOG},dog{ending}\r\n".encode()
    assert classes_of(root / "list.csv", mark + content) == ((CAT, DOG), ("cat", "dog"))


def test_lines_may_begin_with_a_mark(root: Path) -> None:
    content = f"\ufeff{CAT} cat\n{DOG} dog\n".encode()
    assert classes_of(root / "list.txt", content) == ((CAT, DOG), ("cat", "dog"))


@pytest.mark.parametrize("kind", ["int64", "Int64", "float64", "string", "category", "int64[pyarrow]"])
@pytest.mark.parametrize("missing", [False, True])
def test_labels_of_a_table_are_their_text(root: Path, kind: str, missing: bool) -> None:
    """Of a missing label in another domain, pandas makes a column of floating-point numbers."""
    labels = pd.Series(["3", "7", "7"]).astype(kind if kind in ("string", "category") else "float64")
    if missing:
        labels[2] = None
    if not (missing and kind == "int64"):
        labels = labels.astype(kind)
    table = pd.DataFrame({"path": [CAT, DOG, "other.jpg"], "label": labels, "domain": ["photo", "photo", "other"]})
    table.to_parquet(root / "list.parquet")
    files = domain_files("image_folder", "it", catalogue(it=labelled(root / "list.parquet", domain="photo")))
    assert files.classes == ("3", "7")


def test_numbers_that_are_not_whole_stay_as_they_are(root: Path) -> None:
    pd.DataFrame({"path": [CAT, DOG], "label": [0.5, 1.0]}).to_parquet(root / "list.parquet")
    assert classes_of(root / "list.parquet")[1] == ("0.5", "1.0")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("Path,path,label\na,b,c\n", "several columns 'path' ('Path', 'path'): keep one of them"),
        ("path,label,label\na,b,c\n", "several columns 'label' ('label', 'label'): keep one of them"),
        (f"path,label\n{CAT},cat\na,b.jpg,dog\n", "line 3 has more values than there are columns"),
        (f'path,label\n"{CAT},cat\n', "unexpected end of data"),
        ("path,label\n~nobody/a.jpg,cat\n~/b.jpg,dog\n", "~nobody/a.jpg: cannot be read (No such file or directory)"),
        ("", "no column 'path'"),
        ("path;label\na;b\n", "no column 'path'"),
        (b"path,label\n\xff.jpg,b\n", "cannot be read as .csv ('utf-8' codec can't decode byte 0xff"),
    ],
    ids=str,
)
def test_a_table_that_is_not_clear_is_refused_in_one_line(root: Path, content: str | bytes, error: str) -> None:
    (root / "list.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=re.escape(error)) as refused:
        open_all(catalogue(it=labelled(root / "list.csv")), "it")
    assert "\n" not in str(refused.value)


def test_columns_of_parquet_that_differ_in_case_alone_are_refused(root: Path) -> None:
    pd.DataFrame({"Path": ["a"], "path": ["b"]}).to_parquet(root / "list.parquet")
    with pytest.raises(DataError, match="several columns 'path'"):
        classes_of(root / "list.parquet")


# HEIC


@pytest.mark.parametrize("kind", ["unlabelled", "list", "class folders"])
def test_what_no_package_here_reads_is_one_line_before_anything_is_read(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "photo" / "cat" / "9.HEIC").write_bytes(b"")
    place = {
        "unlabelled": unlabelled(root / "photo"),
        "list": labelled(write_list(root / "list.csv", [*ROWS, ("photo/cat/9.HEIC", "cat")])),
        "class folders": labelled(root / "photo"),
    }[kind]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("scale_ray.data.cache.file_state", lambda _: pytest.fail("it was looked at"))
    with pytest.raises(DataError, match=r"cat/9\.HEIC: a HEIC image, .* \(1 such images there\)"):
        open_all(catalogue(it=place), "it")


def test_images_of_a_list_may_be_objects_of_a_bucket(root: Path, s3: S3Server) -> None:
    (photo,) = open_all(root, "photo")
    url, system = s3.new_url(), fsspec.filesystem("s3")
    for path, _ in ROWS:
        system.pipe_file(f"{url}/{path}", (root / path).read_bytes())
    path = write_list(root / "remote.csv", [(f"{url}/{path}", label) for path, label in ROWS])
    places = catalogue(photo=labelled(path))
    (found,) = open_all(places, "photo")
    assert same(found, photo)
    before = s3.requests
    digest = domain_digest("image_folder", "photo", root=places)
    assert s3.requests - before <= 2 * len(ROWS)  # asked for, not read again
    system.pipe_file(f"{url}/{ROWS[0][0]}", (root / ROWS[4][0]).read_bytes())
    assert domain_digest("image_folder", "photo", root=places) != digest
    system.pipe_file(f"{url}/list.csv", write_list(root / "there.csv", ROWS).read_bytes())
    (found,) = open_all(catalogue(photo=labelled(f"{url}/list.csv")), "photo")
    assert len(found.images) == len(ROWS)
    system.rm_file(f"{url}/{ROWS[1][0]}")
    with pytest.raises(DataError, match=rf"{ROWS[1][0]}: cannot be read \(.*\): check the path and your access"):
        domain_digest("image_folder", "photo", root=places)


# Catalogues


def test_a_catalogue_file_is_read_with_paths_below_its_folder(root: Path) -> None:
    (root / "domains.toml").write_text(
        '[domains.photo]\nimages = "photo"\n'
        '[domains.phone]\nimages = ["sketch", "/elsewhere"]\nlabelled = false\n'
        '[domains.hub]\nimages = "hf:some/name:train"\n[label_map]\nbike = "bicycle"\n'
    )
    found = read_catalogue(root / "domains.toml")
    assert found.names == ["photo", "phone", "hub"]
    assert found.place("photo") == Place(images=(str(root / "photo"),))
    assert found.place("phone") == Place(images=(str(root / "sketch"), "/elsewhere"), labelled=False)
    assert found.place("hub") == Place(images=("hf:some/name:train",))
    assert (found.class_name("bike"), found.class_name("cat")) == ("bicycle", "cat")
    assert hash(found) == hash(read_catalogue(root / "domains.toml"))


def test_the_catalogue_of_the_documents_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapt.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "domains.toml").write_text(block)
    assert read_catalogue(tmp_path / "domains.toml").names == ["studio", "phone", "web"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[domains.photo", "not a TOML file"),
        ("x = 1", r"no table \[domains.NAME\] in it"),
        ("[domains.photo]\nimges = 'photo'", "imges"),
        ("[domains.photo]\nimages = ['a', 'b']", "only folders of images without labels may be several"),
        ("[domains.photo]\nimages = 'a'\ndomain = 'x'", "domain: only a list file has one, and a is none"),
    ],
    ids=str,
)
def test_a_catalogue_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "domains.toml").write_text(text)
    with pytest.raises(ConfigError, match=error) as refused:
        read_catalogue(tmp_path / "domains.toml")
    assert str(tmp_path / "domains.toml") in str(refused.value)
    assert "\n" not in str(refused.value)
