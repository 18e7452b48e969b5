"""What docs/odd_images.md says about odd images and folders is what `scale-ray data check` says, word for word."""

import os
import re
import shutil
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from image_trees import write_tree
from PIL import Image

from scale_ray.config import ConfigError
from scale_ray.data.benchmarks import DataError
from scale_ray.data.check import check_data
from scale_ray.data.decoded import open_domains

pytestmark = pytest.mark.usefixtures("own_cache")

PAGE = Path(__file__).parents[2] / "docs" / "odd_images.md"
CLASSES = {"bag": 3, "mug": 3}
PLACE = "photos/phone/mug"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without their marks of code."""
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", cell.strip()) for cell in line[2:-2].split(" | ")] for line in lines]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two domains with two classes of three images, by a path that is the same in every test."""
    monkeypatch.chdir(tmp_path)
    return write_tree(Path("photos"), {"studio": CLASSES, "phone": CLASSES})


def said() -> list[str]:
    report = check_data("image_folder", root=Path("photos"))
    return [f"{finding.kind}: {line}" for finding in (*report.problems, *report.notes) for line in finding.lines]


def picture() -> Image.Image:
    """Something to look at, which no other image of the tests is like."""
    return Image.fromarray(np.random.default_rng(7).integers(16, 256, (40, 48, 3), np.uint8))


def stored(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    content = BytesIO()
    (image or picture()).save(content, form, **options)
    return content.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored("JPEG", exif=exif)


def deep(form: str, highest: int = 65535) -> bytes:
    values = np.random.default_rng(7).integers(0, highest + 1, (40, 48)).astype(np.uint16)
    return stored(form, Image.fromarray(values))


def palette(**options: object) -> bytes:
    return stored("PNG", picture().quantize(16), **options)


def moving(form: str) -> bytes:
    return stored(form, save_all=True, append_images=[picture().rotate(180)])


def numbers(kind: type) -> bytes:
    return stored("TIFF", Image.fromarray(np.arange(2000, dtype=kind).reshape(40, 50)))


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in some bytes: the header alone says so."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def heic() -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    return stored("HEIF")


IMAGES: dict[str, Callable[[], bytes]] = {
    "turned.jpg": turned,
    "deep.png": lambda: deep("PNG"),
    "deep.tif": lambda: deep("TIFF"),
    "twelve.png": lambda: deep("PNG", 4095),
    "inks.jpg": lambda: stored("JPEG", picture().convert("CMYK")),
    "palette.png": lambda: palette(transparency=3),
    "opaque.png": palette,
    "alpha.webp": lambda: stored("WEBP", Image.merge("RGBA", (*picture().split(), picture().getchannel(0)))),
    "moves.gif": lambda: moving("GIF"),
    "moves.webp": lambda: moving("WEBP"),
    "pages.tiff": lambda: moving("TIFF"),
    "photo.jpg": lambda: stored("PNG"),
    "float.tif": lambda: numbers(np.float32),
    "long.tif": lambda: numbers(np.int32),
    "cut.jpg": lambda: stored("JPEG")[:1000],
    "empty.jpg": bytes,
    "text.jpg": lambda: b"see the other folder",
    "pointer.jpg": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "IMG_1.HEIC": heic,
    "IMG_2.JPG": lambda: stored("JPEG"),
    "dot.png": lambda: stored("PNG", Image.new("RGB", (1, 1))),
    "line.png": lambda: stored("PNG", Image.new("RGB", (30_000, 1))),
    "bomb.png": bomb,
    "raw.dng": lambda: b"II*\0",
    "notes.txt": lambda: b"",
    "trip/photo.jpg": lambda: stored("JPEG"),
}


@pytest.mark.parametrize(("what", "name", "line"), rows("Images"), ids=lambda cell: cell[:50])
def test_each_odd_image_has_the_line_of_the_page(
    photos: Path, what: str, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photos / "phone" / "mug" / name
    path.parent.mkdir(exist_ok=True)
    if name == "link.jpg":
        path.symlink_to(photos / "gone.jpg")
    else:
        path.write_bytes(IMAGES[name]())
    if "without the extra" in what:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
    kind, _, reason = line.partition(": ")
    assert said() == ([] if line == "none" else [f"{kind}: {PLACE}/{name}: {reason}"])


def test_every_image_of_the_tests_is_on_the_page() -> None:
    assert {name for _, name, _ in rows("Images")} == {*IMAGES, "link.jpg"}


def test_many_images_of_one_kind_are_one_line(photos: Path) -> None:
    trip = photos / "phone" / "mug" / "trip"
    trip.mkdir()
    for number in range(280):
        (trip / f"{number:03}.jpg").write_bytes(b"x")
    report = check_data("image_folder", root=photos)
    assert [finding.message for finding in report.problems] == [
        "photos/phone: 280 images (such as mug/trip/000.jpg, mug/trip/001.jpg, mug/trip/002.jpg): not used: in a "
        "folder within a class folder: move up into the class folder"
    ]
    (finding,) = report.problems
    assert len(finding.lines) == 280
    assert finding.lines[-1].startswith("photos/phone/mug/trip/279.jpg: not used: in a folder")


# HEIC


def open_phone(photos: Path, **options: object) -> np.ndarray:
    return open_domains("image_folder", ["phone"], root=photos, resize=8, corrupt="skip", **options)[0].images  # type: ignore[arg-type]


def test_heic_without_the_extra_stops_in_one_line_before_anything_is_read_and_is_never_skipped(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = heic()
    (photos / "phone" / "mug" / "IMG_1.HEIC").write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        with pytest.raises(DataError, match=r"^photos/phone/mug/IMG_1\.HEIC: a HEIC image, which the extra heic "):
            open_phone(photos)
        assert capsys.readouterr().err == ""
        # Named as another format, it is known by its bytes alone.
        (photos / "phone" / "mug" / "IMG_1.HEIC").rename(photos / "phone" / "mug" / "IMG_1.jpg")
        with pytest.raises(DataError, match=r"^photos/phone/mug/IMG_1\.jpg: a HEIC image, which the extra heic "):
            open_phone(photos)
    assert len(open_phone(photos)) == 7


# Folders


def flat(photos: Path) -> None:
    for path in (photos / "phone").rglob("*.jpg"):
        path.rename(photos / "phone" / f"{path.parent.name}{path.name}")
    for name in CLASSES:
        (photos / "phone" / name).rmdir()


def deeper(photos: Path) -> None:
    (photos / "phone").rename(photos / "train")
    (photos / "phone").mkdir()
    (photos / "train").rename(photos / "phone" / "train")


def one_class(photos: Path) -> None:
    shutil.rmtree(photos / "studio")
    shutil.rmtree(photos / "phone" / "bag")


def no_images(photos: Path) -> None:
    for path in (photos / "phone" / "bag").iterdir():
        path.unlink()


def renamed(domain: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda photos: (photos / domain / old).rename(photos / domain / new) and None


def accents(photos: Path) -> None:
    for domain, form in (("phone", "NFD"), ("studio", "NFC")):
        renamed(domain, "mug", unicodedata.normalize(form, "caf\xe9"))(photos)  # type: ignore[arg-type]


def closed(photos: Path) -> None:
    (photos / "phone").chmod(0)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "a domain without class folders": flat,
    "class folders one folder too deep": deeper,
    "one class only": one_class,
    "a class without images": no_images,
    "class names that differ by case": renamed("phone", "mug", "Mug"),
    "class names that differ by Unicode normalisation": accents,
    "class names that differ by a blank": renamed("studio", "mug", "mug "),
    "a link to a folder that is gone": lambda photos: (photos / "phone" / "mugs").symlink_to(photos / "gone"),
    "a folder that may not be read": closed,
    "what an archive of a Mac leaves": lambda photos: (photos / "__MACOSX" / "phone").mkdir(parents=True),
    "a root that is a file": lambda photos: photos.with_name("photos.zip").write_bytes(b"PK") and None,
}


@pytest.mark.parametrize(("what", "line"), rows("Folders"), ids=lambda cell: cell[:50])
def test_each_odd_folder_has_the_line_of_the_page(
    photos: Path, what: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FOLDERS[what](photos)
    if what == "a root that is a file":
        with pytest.raises(ConfigError) as error:
            check_data("image_folder", root=Path("photos.zip"))
        assert f"error: {error.value}" == line
        return
    if what == "a folder that may not be read" and os.access(photos / "phone", os.R_OK):  # root may read everything
        scan = os.scandir

        def refuse(path: Path) -> object:
            if Path(path).name == "phone":
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
    assert said() == [line]
    if what == "a folder that may not be read":
        (photos / "phone").chmod(0o755)  # so that it can be deleted
