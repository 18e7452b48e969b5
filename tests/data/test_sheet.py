"""The contact sheet: every class of every domain, in one file that needs no other."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from image_trees import truncate
from PIL import Image

from scale_ray.config import ConfigError
from scale_ray.data.benchmarks import DataError
from scale_ray.data.check.sheet import check_sheet_name, write_sheet
from scale_ray.data.domain_files import DomainFiles, class_folders, unlabelled_folders

pytestmark = pytest.mark.usefixtures("own_cache")

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Six red bags and two blue mugs in two domains, one of which has an odd name."""
    found = {name: tmp_path / "root" / name for name in ("phone", "<studio>&")}
    for folder in found.values():
        for name, colour, count in (("bag", RED, 6), ("mug", BLUE, 2)):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (64, 48), colour).save(folder / name / f"{number}.png")
    return found


def domains(folders: dict[str, Path]) -> dict[str, DomainFiles]:
    return {name: class_folders(name, folder) for name, folder in folders.items()}


def strips(page: str) -> list[np.ndarray]:
    contents = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(BytesIO(base64.b64decode(content)))) for content in contents]


def test_the_page_has_images_of_each_class_in_three_views(folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "sheet.html"
    assert write_sheet("image_folder", domains(folders), file) == 2 * (4 + 2)
    page = file.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "it loads nothing"
    assert "<studio>" not in page
    assert "&lt;studio&gt;&amp;" in page
    assert (
        re.findall(r"<figcaption>(.*?)</figcaption>", page)
        == ["0.png", "1.png", "3.png", "4.png", "0.png", "1.png"] * 2
    )
    drawn = strips(page)
    assert {image.shape for image in drawn} == {(100, 304, 3)}
    for image, colour in zip(drawn, ([RED] * 4 + [BLUE] * 2) * 2, strict=True):
        for view in (image[:, :100], image[:, 102:202]):  # evaluation and weak: a crop of one colour is that colour
            assert np.abs(view[10:-10, 10:-10].astype(int) - colour).max() < 8


def test_the_same_images_make_the_same_page(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_sheet("image_folder", domains(folders), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_png_shows_the_same_in_rows(folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "sheet.PNG"
    assert write_sheet("image_folder", domains(folders), file) == 12
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    for colour, images in ((RED, 8), (BLUE, 4)):
        near = (np.abs(pixels - colour).max(axis=2) < 8).sum()
        assert near > images * 1.9 * 100 * 100, colour


def test_an_image_that_cannot_be_read_is_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    truncate(folders["phone"] / "mug" / "1.png")
    (folders["phone"] / "mug" / "0.png").unlink()
    (folders["phone"] / "mug" / "0.png").symlink_to(folders["phone"] / "gone.png")
    assert write_sheet("image_folder", domains(folders), tmp_path / "sheet.html") == 2 * 6 - 2


def test_digits_have_a_sheet_too(tmp_path: Path) -> None:
    assert write_sheet("digits", {}, tmp_path / "sheet.html") == 4 * 10 * 4


def test_of_many_classes_fewer_images_are_shown(tmp_path: Path) -> None:
    for number in range(70):
        (tmp_path / "root" / "phone" / f"{number:03}").mkdir(parents=True)
        for image in range(5):
            Image.new("RGB", (8, 8), (number, image, 0)).save(
                tmp_path / "root" / "phone" / f"{number:03}" / f"{image}.png"
            )
    folders = {"phone": tmp_path / "root" / "phone"}
    assert write_sheet("image_folder", domains(folders), tmp_path / "sheet.html") == 70 * 3  # of 240
    assert write_sheet("image_folder", domains(folders), tmp_path / "sheet.png") == 60


def test_images_without_labels_are_shown_without_a_class(folders: dict[str, Path], tmp_path: Path) -> None:
    found = domains(folders) | {"new": unlabelled_folders("new", [folders["phone"]])}
    assert write_sheet("image_folder", found, tmp_path / "sheet.html") == 2 * (4 + 2) + 8
    page = (tmp_path / "sheet.html").read_text()
    assert "<h2>new <span>without labels</span></h2>" in page
    assert page.count("<h3>") == 4
    assert "<figcaption>bag/5.png</figcaption>" in page
    assert write_sheet("image_folder", found, tmp_path / "sheet.png") == 20


def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--sheet sheet\.pdf: a sheet is FILE\.html or FILE\.png"):
        check_sheet_name(Path("sheet.pdf"))
    with pytest.raises(ConfigError, match=r"no such folder: .*/none"):
        check_sheet_name(tmp_path / "none" / "sheet.html")
    (tmp_path / "sheet.html").mkdir()
    with pytest.raises(DataError, match=r"sheet\.html: cannot be written \(Is a directory\)"):
        write_sheet("image_folder", {}, tmp_path / "sheet.html")
