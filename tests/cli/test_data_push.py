"""`scale-ray data push`, and trainings on images that lie at a URL."""

from pathlib import Path

import fsspec
import pytest
from commands import TINY, command, refused, truncate
from s3_server import S3Server

from scale_ray.records import Record
from scale_ray.store import Store


@pytest.fixture
def url(s3: S3Server, images: Path) -> str:
    """The images in a bucket."""
    found = s3.new_url()
    system, path = fsspec.core.url_to_fs(found)
    system.put(f"{images}/", f"{path}/", recursive=True)
    return found


def test_a_push_says_what_it_wrote_and_again_that_it_was_there(images: Path, tmp_path: Path) -> None:
    push = ("data", "push", tmp_path / "store", "--root", images, "--resize", "100")
    outcome = command(*push)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines() == [
        "Art: 16 images in 1 shards of pixels, 0.5 MiB written",
        "Real World: 16 images in 1 shards of pixels, 0.5 MiB written",
        f"image_folder: 2 domains in {tmp_path}/store/data",
    ]
    assert "Art: 16 images in 1 shards of pixels, was there already" in command(*push).out.splitlines()


def test_pushes_that_cannot_be_are_refused(own_images: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    refused(command("data", "push", store), "image_folder: where are the images?")
    refused(command("data", "push", store, "--benchmark", "digits"), "digits: every machine draws them for itself")
    refused(command("data", "push", "ftp://x/y", "--root", own_images), "ftp:// is not supported: give a folder")
    truncate(own_images / "Art" / "cat" / "3.jpg")
    refused(
        command("data", "push", store, "--root", own_images),
        "Art/cat/3.jpg: unreadable image (truncated: the file ends before the image does): replace it",
    )


def test_a_training_from_a_url_leaves_the_record_of_a_folder(images: Path, url: str, tmp_path: Path) -> None:
    records: list[Record] = []
    for number, root in enumerate((images, url)):
        store = tmp_path / f"store-{number}"
        outcome = command("train", "--root", root, *TINY, "--store", store)
        assert outcome.status == 0, outcome.err
        records += Store(store).records()
    one, other = records
    assert one.model_dump(exclude={"provenance"}) == other.model_dump(exclude={"provenance"})


def test_a_study_file_of_ones_own_names_the_url(url: str, tmp_path: Path) -> None:
    outcome = command("init", tmp_path / "phones.py", "--root", url)
    assert outcome.status == 0, outcome.err
    assert f"root='{url}'" in (tmp_path / "phones.py").read_text()
