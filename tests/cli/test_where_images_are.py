"""--root and --target-images: folders of domains, catalogues, lists, and targets without labels."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import command, refused
from PIL import Image, ImageOps

from scale_ray.cli.images import usual_pairs
from scale_ray.config import Catalogue, ConfigError, Place
from scale_ray.data.roots import read_root

SMALL = [
    *("--backbone", "lenet", "--weights", "none", "--steps", "4", "--losses", "ce+ssl", "--device", "cpu"),
    *("--set", "data.image_size=32", "--set", "data.resize=32", "--set", "optim.batch_size=4"),
    *("--set", "evaluate_every=2", "--set", "model.hidden_dim=16", "--set", "model.projection_dim=8"),
]


@pytest.fixture
def phone(images: Path, tmp_path: Path) -> Path:
    """Images without labels in one folder: those of one domain, upside down."""
    folder = tmp_path / "phone"
    folder.mkdir()
    for path in (images / "Real World").rglob("*.jpg"):
        with Image.open(path) as image:
            ImageOps.flip(image).save(folder / f"{path.parent.name}_{path.name}")
    return folder


def test_a_folder_of_domains_stays_a_path(images: Path) -> None:
    assert read_root(images, ()) == images
    assert read_root(None, ()) is None
    assert usual_pairs(images) == []


def test_targets_without_labels_stand_beside_the_domains_of_a_root(images: Path, phone: Path) -> None:
    found = read_root(images, [phone])
    assert isinstance(found, Catalogue)
    assert found.names == ["Art", "Real World", "phone"]
    assert found.place("phone") == Place(images=str(phone), labelled=False)
    assert usual_pairs(found) == [("Art", "phone"), ("Real World", "phone")]


def test_a_folder_below_the_root_is_a_target_without_labels(images: Path, phone: Path) -> None:
    root = phone.parent / "photos"
    shutil.copytree(images / "Art", root / "studio")
    shutil.copytree(phone, root / "phone")
    found = read_root(root, [root / "phone"])
    assert isinstance(found, Catalogue)
    assert found.place("phone") == Place(images=str(root / "phone"), labelled=False)
    assert usual_pairs(found) == [("studio", "phone")]


def test_a_list_has_the_domains_of_its_column(images: Path, tmp_path: Path) -> None:
    rows = [(str(path), path.parent.name, path.parts[-3]) for path in sorted(images.rglob("*.jpg"))]
    path = tmp_path / "all.csv"
    pd.DataFrame(rows, columns=["path", "label", "domain"]).to_csv(path, index=False)
    found = read_root(path, ())
    assert found == Catalogue(domains={name: Place(images=str(path), domain=name) for name in ("Art", "Real World")})
    outcome = command("train", "--root", path, "--source", "Art", "--target", "Real World", *SMALL)
    assert outcome.status == 0, outcome.err
    assert "Art>Real World ce+ssl lenet seed 0: target " in outcome.out


@pytest.mark.parametrize(
    ("root", "targets", "error"),
    [
        (None, ["phone"], "--target-images has no labels to learn from: name the labelled images too, with --root"),
        ("images", ["none"], "--target-images .*none: no such folder"),
        ("images", ["Art"], "there is a domain 'Art' already: rename this folder"),
        ("images", ["phone", "phone"], "there is a domain 'phone' already: rename this folder"),
    ],
)
def test_images_that_are_nowhere_are_refused(
    images: Path, phone: Path, root: str | None, targets: list[str], error: str
) -> None:
    (phone.parent / "file.zip").write_bytes(b"")
    (phone.parent / "Art").mkdir()
    there = {"images": images, "file.zip": phone.parent / "file.zip"}
    with pytest.raises(ConfigError, match=error):
        read_root(None if root is None else there[root], [phone.parent / name for name in targets])


def test_a_training_on_a_target_without_labels_says_so(images: Path, phone: Path, tmp_path: Path) -> None:
    arguments = ("train", "--root", images, "--target-images", phone, *SMALL, "--store", tmp_path / "store")
    refused(
        command(*arguments),
        "there are several domain pairs (Art:phone, Real World:phone): name one (train: --source, --target",
    )
    outcome = command(*arguments, "--source", "Art")
    assert outcome.status == 0, outcome.err
    last = next(line for line in outcome.out.splitlines() if line.startswith("Art>phone"))
    assert "target without labels, source_val " in last
    assert "teacher agrees on " in outcome.out
    assert "0.00 %" not in last.partition("source_val")[0]


def test_without_a_benchmark_a_root_is_an_image_folder(images: Path) -> None:
    outcome = command("train", "--root", images, "--source", "Art", "--target", "Real World", *SMALL)
    assert outcome.status == 0, outcome.err
    refused(command("train", "--root", images, *SMALL), "image_folder has no usual domain pair: name one")


def test_a_comparison_pairs_every_source_with_every_target_without_labels(images: Path, phone: Path) -> None:
    size = ("--set", "data.image_size=32", "--set", "data.resize=32", "--set", "optim.batch_size=4")
    grid = ("--methods", "source_only,mcc", "--seeds", "1", "--dry-run", "--store", phone.parent / "store")
    outcome = command("compare", "--root", images, "--target-images", phone, *SMALL[:6], *size, *grid)
    assert outcome.status == 0, outcome.err
    for pair in ("Art>phone", "Real World>phone"):
        assert f"{pair} mcc lenet seed 0" in outcome.out
    assert "comparison-image_folder: 4 cells, 0 done, 4 to do" in outcome.out
