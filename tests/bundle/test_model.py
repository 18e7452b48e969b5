"""A model on images of every kind: files, folders, Pillow, NumPy, torch; and on what cannot be read."""

import io
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from s3_server import S3Server, without_credentials
from test_bundles import made_up, photo

from scale_ray import UserError
from scale_ray.bundle.images import images_named
from scale_ray.bundle.model import Model, in_advance
from scale_ray.bundle.table import COLUMNS, TABLES, table_of
from scale_ray.data.domain_files import images_below


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(made_up(), "cpu", threads=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images at several depths, and what is none."""
    numbers = np.random.default_rng(0)
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "deep/d.png", ".hidden/e.png", "__MACOSX/f.png", "deep/g.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / ".DS_Store").write_text("no image")
    (tmp_path / "photos" / "deep" / "again").symlink_to(tmp_path / "photos")  # a circle
    return tmp_path / "photos"


NAMES = ["a.JPG", "b.png", "deep/d.png", "deep/er/c.webp", "deep/g.png"]


def test_a_folder_stands_for_its_images_at_any_depth_without_hidden_ones(folder: Path) -> None:
    found = images_named([folder])
    assert found.paths == [str(folder / name) for name in NAMES]
    assert found.others == 1


def test_a_folder_stands_for_the_images_that_a_training_takes(folder: Path) -> None:
    """Each image once, and neither what a link to a folder leads to nor a link that leads nowhere."""
    (folder / "again").symlink_to(folder / "deep")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    found = images_named([folder])
    assert images_below(folder) == NAMES
    assert found.paths == [str(folder / name) for name in NAMES]
    assert found.others == 2  # the notes and the link


def test_files_and_patterns_are_taken_as_they_are_named_and_each_once(folder: Path) -> None:
    found = images_named([folder / "notes.txt", f"{folder}/deep/*.png", folder / "deep" / "g.png", folder / "b.png"])
    assert found.paths == [str(folder / name) for name in ("notes.txt", "deep/d.png", "deep/g.png", "b.png")]
    assert images_named([f"{folder}/deep/e*/**/*.webp"]).paths == [str(folder / "deep/er/c.webp")]


@pytest.mark.parametrize(("name", "message"), [("none", "no such file or folder"), ("empty", "no image in it")])
def test_a_name_that_stands_for_nothing_is_refused(name: str, message: str, tmp_path: Path, model: Model) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=message):
        model.predict(tmp_path / name)


def test_rows_are_the_two_most_probable_classes(folder: Path, model: Model) -> None:
    frame = model.predict(folder)
    probabilities = model.probabilities(folder)
    assert list(frame) == COLUMNS
    assert frame["path"].tolist() == [str(folder / name) for name in NAMES]
    assert probabilities.sum(axis=1) == pytest.approx(1)
    for row, found in zip(frame.itertuples(index=False), probabilities, strict=True):
        assert row[1] == model.classes[int(found.argmax())]
        assert (row[2], row[4]) == tuple(sorted(found.tolist(), reverse=True)[:2])
        assert found[model.classes.index(row[3])] == row[4]
    assert frame["problem"].isna().all()


def test_an_image_is_the_same_as_file_and_as_object(tmp_path: Path, model: Model) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (50, 70, 3), np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    expected = model.probabilities(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    with Image.open(path) as opened:
        for image in (str(path), opened, pixels, tensor, tensor / 255, tensor.double() / 255):
            assert np.array_equal(model.probabilities(image), expected)
            assert np.array_equal(model.probabilities([image]), expected)
    for batch in (np.stack([pixels] * 2), torch.stack([tensor] * 2)):
        assert model.probabilities(batch) == pytest.approx(np.repeat(expected, 2, axis=0), abs=1e-6)
    assert model.predict(pixels)["path"].isna().all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_objects_of_any_mode_are_read_as_their_files(mode: str, tmp_path: Path, model: Model) -> None:
    numbers = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
    image = Image.fromarray(numbers)
    image = Image.fromarray(numbers[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    assert np.array_equal(model.probabilities(image), model.probabilities(path))


def test_orientation_counts_for_objects_too(tmp_path: Path, model: Model) -> None:
    path = photo(tmp_path / "photo.jpg")
    with Image.open(path) as image:
        image.load()  # at its full size: the decoder of a path may scale a JPEG
        turned = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
        assert np.array_equal(model.probabilities(image), model.probabilities(turned))


UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "text": (b"no image", "not an image of any known format"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
}


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_what_cannot_be_read_has_a_row_that_says_so(batch: int, folder: Path, model: Model) -> None:
    expected = model.predict(folder)
    for name, (content, _) in UNREADABLE.items():
        (folder / f"{name}.png").write_bytes(content)
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole, "PNG")
    (folder / "truncated.png").write_bytes(whole.getvalue()[:2000])
    frame = model.predict([folder, Image.open(folder / "b.png")], batch=batch)
    probabilities = model.probabilities(folder, batch=batch)
    assert len(frame) == len(probabilities) + 1 == 10
    problems = {Path(row.path).stem: row.problem for row in frame.itertuples() if isinstance(row.problem, str)}
    assert problems.keys() == {*UNREADABLE, "truncated"}
    for name, (_, why) in UNREADABLE.items():
        assert problems[name].startswith(why)
    unread = frame["problem"].notna()
    assert frame.loc[unread, COLUMNS[1:5]].isna().all(axis=None)
    assert np.array_equal(np.isnan(probabilities).all(axis=1), unread[:-1])
    readable = frame[~unread].iloc[:-1].reset_index(drop=True)
    assert readable[["path", "class", "second_class"]].equals(expected[["path", "class", "second_class"]])
    assert readable["probability"].to_numpy(float) == pytest.approx(expected["probability"].to_numpy(float), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.zeros((4, 4, 7), np.uint8), "an array of uint8 of the shape (4, 4, 7)"),
        (np.zeros((4, 4, 3)), "an array of float64"),
        (torch.zeros(7, 4, 4), "a tensor of torch.float32 of the shape (7, 4, 4)"),
        (torch.full((3, 4, 4), 1.5), "a tensor with numbers outside [0, 1]"),
        (torch.full((3, 4, 4), torch.nan), "a tensor with numbers outside [0, 1]"),
        (7, "a int: give a path"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels: its shape is (0, 4, 3)"),
        (torch.zeros(3, 4, 0), "no pixels: its shape is (3, 4, 0)"),
        (Image.new("RGB", (0, 4)), "cannot write empty image"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_objects_that_are_no_images_say_why(image: object, why: str, model: Model) -> None:
    (problem,) = model.predict([image])["problem"]  # type: ignore[list-item]
    assert problem.startswith(why)


def test_a_file_that_is_gone_by_now_is_a_row(folder: Path, model: Model) -> None:
    rows = list(model.rows([str(folder / "b.png"), str(folder / "gone.png")]))
    assert [row.problem for row in rows] == [None, "cannot be read (No such file or directory)"]


def test_a_fault_of_the_program_is_no_row(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scale_ray.bundle.images.decode_image", lambda *_: [][1])
    with pytest.raises(IndexError):
        model.predict(folder)


def test_an_image_that_a_package_reads_which_is_missing_has_a_row_that_says_so(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (row,) = model.rows([folder / "IMG_1.HEIC"])
    assert row.problem == "a HEIC image, which the extra heic of scale-ray reads"


@given(st.lists(st.integers(), max_size=40), st.integers(1, 4), st.integers(0, 10))
def test_in_advance_keeps_the_order_and_works_on_no_more_than_it_may(items: list, threads: int, ahead: int) -> None:
    begun, lock = [0], threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun[0] += 1
        return 2 * item

    found = []
    for result in in_advance(work, items, threads=threads, ahead=ahead):
        found.append(result)
        assert begun[0] <= len(found) + ahead
    assert found == [2 * item for item in items]


# Tables


@pytest.mark.parametrize("suffix", TABLES)
def test_every_kind_of_table_has_the_same_rows(suffix: str, folder: Path, model: Model) -> None:
    import pandas as pd

    (folder / "empty.png").write_bytes(b"")
    rows = list(model.rows(images_named([folder]).paths))
    content = io.BytesIO(table_of(rows, suffix))
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda file: pd.read_json(file, lines=True)}
    frame = read[suffix](content)
    assert list(frame) == COLUMNS
    assert frame["path"].tolist() == [row.path for row in rows]
    assert frame["class"].fillna("").tolist() == [row.label or "" for row in rows]
    assert frame["probability"].fillna(-1).tolist() == pytest.approx([row.probability or -1 for row in rows], abs=1e-6)
    assert frame["problem"].fillna("").tolist() == [row.problem or "" for row in rows]


def test_without_any_problem_the_columns_are_the_same(folder: Path, model: Model) -> None:
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(table_of(list(model.rows([str(folder / "b.png")])), ".parquet")))
    assert list(frame) == COLUMNS
    nothing = pd.read_parquet(io.BytesIO(table_of(list(model.rows([str(folder / "notes.txt")])), ".parquet")))
    assert nothing.dtypes.equals(frame.dtypes)


# Object stores


def test_images_of_a_bucket_are_listed_and_read(folder: Path, model: Model, s3: S3Server) -> None:
    import fsspec

    (folder / "empty.png").write_bytes(b"")
    url = s3.new_url()
    filesystem, place = fsspec.core.url_to_fs(url)
    filesystem.put(f"{folder}/deep/er", f"{place}/er", recursive=True)
    for name in ("b.png", "notes.txt", "empty.png"):
        filesystem.put_file(f"{folder}/{name}", f"{place}/{name}")
    found = images_named([url])
    assert (found.paths, found.others) == ([f"{url}/{name}" for name in ("b.png", "empty.png", "er/c.webp")], 1)
    assert images_named([f"{url}/notes.txt"]).paths == [f"{url}/notes.txt"]
    rows = list(model.rows(found.paths))
    here = list(model.rows([str(folder / name) for name in ("b.png", "empty.png", "deep/er/c.webp")]))
    assert [row[1:] for row in rows] == [row[1:] for row in here]
    with pytest.raises(UserError, match="no such file or folder"):
        images_named([f"{url}/none"])
    (gone,) = model.rows([f"{url}/gone.png"])
    assert (gone.problem or "").startswith("cannot be read (")


def test_a_bucket_without_credentials_is_one_line(model: Model, s3: S3Server) -> None:
    url = s3.new_url()
    said = r"cannot be listed \(Unable to locate credentials\): check the URL and your access"
    with without_credentials():
        with pytest.raises(UserError, match=said):
            images_named([url])
        (row,) = model.rows([f"{url}/a.png"])
    assert row.problem == "cannot be read (Unable to locate credentials)"
