"""`scale-ray data check` of a catalogue: domains in folders of their own, images without labels, lists."""

from pathlib import Path

import numpy as np
import pytest
from image_trees import truncate
from PIL import Image

from scale_ray.cli import app
from scale_ray.config import Catalogue, Place, read_catalogue
from scale_ray.data.check import check_data

pytestmark = pytest.mark.usefixtures("own_cache")

CATALOGUE = """
[domains.studio]
images = "studio"

[domains.phone]
images = "phone"
labelled = false

[domains.web]
images = "web.csv"

[label_map]
mugs = "mug"
"""


def write(folder: Path, count: int, seed: int) -> list[Path]:
    """Images of random patches; no two of different seeds are alike."""
    folder.mkdir(parents=True)
    paths = [folder / f"{seed + number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        patches = np.random.default_rng(seed + number).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(patches).resize((96, 72), Image.Resampling.NEAREST).save(path)
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A labelled folder, images at two depths without labels, and a list whose class `mugs` is renamed."""
    for seed, (folder, count) in enumerate({"studio/bag": 3, "studio/mug": 3, "phone": 3, "phone/2025": 2}.items()):
        write(tmp_path / folder, count, 10 * seed)
    labels = ("bag", "bag", "mugs", "mugs")
    listed = zip(write(tmp_path / "all", 4, 100), labels, strict=True)
    (tmp_path / "web.csv").write_text(
        "\n".join(["path,label", *(f"all/{path.name},{label}" for path, label in listed)])
    )
    (tmp_path / "photos.toml").write_text(CATALOGUE)
    return tmp_path


def found(folder: Path) -> list[str]:
    report = check_data("image_folder", root=read_catalogue(folder / "photos.toml"))
    return [
        f"{finding.kind}: {finding.message}".replace(f"{folder}/", "") for finding in (*report.problems, *report.notes)
    ]


def test_all_domains_of_a_catalogue_are_read(photos: Path) -> None:
    report = check_data("image_folder", root=read_catalogue(photos / "photos.toml"))
    assert report.images == {"studio": 6, "phone": 5, "web": 4}
    assert (report.problems, report.notes) == ([], [])


def test_each_kind_of_domain_has_its_findings(photos: Path) -> None:
    truncate(photos / "phone" / "20.png")
    (photos / "phone" / "2025" / "notes.txt").write_text("")
    (photos / "phone" / "2025" / "twin.png").write_bytes((photos / "all" / "100.png").read_bytes())
    (photos / "all" / "101.png").unlink()
    lines = found(photos)
    assert len(lines) == 4
    assert lines[0].startswith("unreadable: phone/20.png: truncated")
    assert lines[1].startswith("unreadable: all/101.png: cannot be read (No such file or directory)")
    assert lines[2].startswith("leak: phone/2025/twin.png = all/100.png: same files in phone and web")
    assert lines[3] == "ignored: phone/2025/notes.txt: not used: no image by its suffix (.txt)"


def test_a_place_that_lacks_is_one_line_and_the_others_are_read(photos: Path) -> None:
    (photos / "web.csv").rename(photos / "gone.csv")
    assert found(photos) == ["missing: web.csv: no such file: name a list of images"]


def test_classes_differ_between_a_list_and_a_folder(photos: Path) -> None:
    text = (photos / "photos.toml").read_text()
    (photos / "photos.toml").write_text(text.partition("[label_map]")[0])
    (line,) = found(photos)
    assert line.startswith("classes: classes are not the same in every domain: studio lacks 'mugs'; web lacks 'mug'")


def test_copies_without_labels_count_twice(tmp_path: Path) -> None:
    (first,) = write(tmp_path / "phone" / "2024", 1, 0)
    (tmp_path / "phone" / "copy.png").write_bytes(first.read_bytes())
    place = Place(images=str(tmp_path / "phone"), labelled=False)
    (problem,) = check_data("image_folder", root=Catalogue(domains={"phone": place})).problems
    assert (problem.kind, problem.names) == ("copies", ("copy.png = 2024/0.png",))


def test_the_command_reads_target_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "labelled").mkdir()
    (photos / "studio").rename(photos / "labelled" / "studio")
    monkeypatch.chdir(photos)
    options = ["--root", "labelled", "--target-images", "phone"]
    assert not app(["data", "check", "image_folder", *options], standalone_mode=False)
    assert "11 images (studio 6, phone 5)" in capsys.readouterr().out
    app(["data", "prepare", "image_folder", *options, "--resize", "32"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "studio: 6 images of 32 x 32 px" in printed
    assert "phone: 5 images of 32 x 32 px" in printed
