"""Images at a URL: s3://bucket/photos is what the folder photos is, to the last bit."""

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from image_trees import TWO_DOMAINS, open_all, truncate, write_tree
from s3_server import S3Server, without_credentials

from scale_ray.config import Catalogue, ConfigError, Place, Root
from scale_ray.data.benchmarks import DataError
from scale_ray.data.check import check_data
from scale_ray.data.decoded import domain_digest, domain_names
from scale_ray.data.domain_files import checked_files
from scale_ray.data.remote_folders import forget_listings
from scale_ray.data.roots import read_root

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", TWO_DOMAINS)


@pytest.fixture
def url(s3: S3Server) -> str:
    return s3.new_url()


def upload(folder: Path, url: str) -> str:
    system, path = fsspec.core.url_to_fs(url)
    system.put(f"{folder}/", f"{path}/", recursive=True)
    return url


def catalogue(url: str) -> Root:
    found = read_root(url, ())
    assert isinstance(found, Catalogue)
    return found


def test_a_url_is_what_the_folder_is(root: Path, url: str) -> None:
    there = catalogue(upload(root, url))
    assert domain_names("image_folder", root=there) == ["photo", "sketch"]
    for one, other in zip(open_all(there), open_all(root), strict=True):
        assert (one.digest, one.files, one.classes) == (other.digest, other.files, other.classes)
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)  # type: ignore[arg-type]


def test_a_path_that_lost_a_slash_is_still_a_url(root: Path, url: str) -> None:
    upload(root, url)
    assert read_root(Path(url), ()) == read_root(url, ()) == read_root(f"{url}/", ())


def test_content_is_read_once_for_its_digest_until_it_changes(root: Path, url: str, s3: S3Server) -> None:
    there = catalogue(upload(root, url))
    digest = domain_digest("image_folder", "photo", root=there)
    before = s3.requests
    assert domain_digest("image_folder", "photo", root=there) == digest
    assert s3.requests == before
    forget_listings()
    assert domain_digest("image_folder", "photo", root=there) == digest
    assert s3.requests - before == 1  # the listing
    upload(write_tree(root.parent / "other", {"photo": {"cat": 4}}), url)
    forget_listings()
    assert domain_digest("image_folder", "photo", root=there) != digest


def test_targets_without_labels_at_a_url(root: Path, url: str, s3: S3Server) -> None:
    upload(root / "sketch", url)
    name = url.rpartition("/")[2]
    there = read_root(root, [Path(url)])
    assert isinstance(there, Catalogue)
    assert there.place(name) == Place(images=url, labelled=False)
    here = Catalogue(domains={name: Place(images=str(root / "sketch"), labelled=False)})
    (one,), (other,) = open_all(there, name), open_all(here, name)
    assert (one.digest, one.files, one.labels) == (other.digest, other.files, None)


def test_a_benchmark_at_a_url_has_its_names_and_counts(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    classes = dict.fromkeys(("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"), 2)
    there = catalogue(upload(write_tree(tmp_path / "pacs", {"photo": classes, "sketch": classes}), url))
    open_all(there, "photo", benchmark="pacs")
    assert "pacs differs from what is published: photo: 14 images, published: 1670" in caplog.text


def test_other_spellings_of_a_benchmarks_domain_are_found(tmp_path: Path) -> None:
    there = Catalogue(domains={"Real World": Place(images=str(tmp_path))})
    with pytest.raises(DataError, match="no class folders in it"):
        checked_files("office_home", ["Real_World"], there)


def test_what_is_not_used_is_said(root: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    (root / "photo" / "cat" / "notes.txt").write_text("no image")
    (root / "photo" / "readme.md").write_text("no image")
    (root / "photo" / "cat" / "more").mkdir()
    shutil.copy(root / "photo" / "cat" / "0.jpg", root / "photo" / "cat" / "more" / "0.jpg")
    (root / "photo" / ".hidden").write_text("nobody sees it")
    there = catalogue(upload(root, url))
    open_all(there)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == (
        "photo: 3 files are not used: 1 of a format that is not read (.txt), 1 in a subfolder of a class, 1 not in a "
        "class folder; `scale-ray data check image_folder --root CATALOGUE --all` names them"
    )
    report = check_data("image_folder", root=there)
    lines = [line for finding in report.problems for line in finding.lines if finding.kind == "ignored"]
    assert f"{url}/photo/cat/notes.txt: not used: no image by its suffix (.txt)" in lines


def test_a_check_names_images_by_their_urls(root: Path, url: str) -> None:
    truncate(root / "photo" / "cat" / "1.jpg")
    shutil.copy(root / "photo" / "cat" / "0.jpg", root / "sketch" / "cat" / "9.jpg")
    report = check_data("image_folder", root=catalogue(upload(root, url)))
    lines = [line for finding in report.problems for line in finding.lines]
    assert f"{url}/photo/cat/1.jpg: truncated: the file ends before the image does" in lines
    assert any(f"{url}/photo/cat/0.jpg = {url}/sketch/cat/9.jpg" in line for line in lines), lines


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        ({"root": {"photo": {"cat": 1}}}, r"root: images lie deeper than CLASS/image \(such as photo/cat/0.jpg\)"),
        ({"photo": {"cat": 3}}, "photo: one class only, 'cat'"),
    ],
)
def test_folders_that_are_no_domains_are_refused(tmp_path: Path, url: str, tree: dict, error: str) -> None:
    for name, below in tree.items():
        if isinstance(next(iter(below.values())), dict):
            write_tree(tmp_path / "root" / name, below)
        else:
            write_tree(tmp_path / "root", {name: below})
    there = catalogue(upload(tmp_path / "root", url))
    with pytest.raises(DataError, match=error):
        open_all(there, next(iter(tree)))


def test_a_url_where_nothing_is_and_one_that_lets_nobody_in(url: str) -> None:
    with pytest.raises(DataError, match=rf"{url}/none: cannot be read \(.*\): check the path and your access"):
        read_root(f"{url}/none", ())
    with without_credentials(), pytest.raises(DataError, match=r"cannot be read \(.*credentials"):
        read_root(url, ())
    with pytest.raises(DataError, match=r"nowhere://x: cannot be read \(Protocol not known: nowhere"):
        read_root("nowhere://x", ())


def test_a_list_at_a_url_is_a_root(root: Path, url: str, tmp_path: Path) -> None:
    paths = sorted(root.rglob("*.jpg"))
    rows = [(path.relative_to(root).as_posix(), path.parent.name, path.parts[-3]) for path in paths]
    pd.DataFrame(rows, columns=["path", "label", "domain"]).to_csv(root / "all.csv", index=False)
    there = catalogue(f"{upload(root, url)}/all.csv")
    (one,), (other,) = open_all(there, "photo"), open_all(root, "photo")
    assert np.array_equal(one.images, other.images)


def test_a_data_set_of_hugging_face_is_a_root_by_its_splits(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = {}
    for name in ("photo", "sketch"):
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
        paths = sorted((root / name).rglob("*.jpg"))
        rows = {"image": list(map(str, paths)), "label": [path.parent.name for path in paths]}
        found[name] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(found).save_to_disk(tmp_path / "saved")
    there = read_root(f"hf:{tmp_path / 'saved'}", ())
    assert isinstance(there, Catalogue)
    for one, other in zip(open_all(there), open_all(root), strict=True):
        assert np.array_equal(one.images, other.images)
    found["photo"].save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match="its domains would be its splits, and it has none"):
        read_root(f"hf:{tmp_path / 'one'}", ())


def test_two_targets_of_one_name_are_refused(url: str, root: Path) -> None:
    upload(root / "sketch", f"{url}/photo")
    with pytest.raises(ConfigError, match=f"--target-images {url}/photo: there is a domain 'photo' already"):
        read_root(root, [f"{url}/photo"])
