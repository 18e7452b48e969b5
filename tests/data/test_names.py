"""Names of folders and files: bytes that no record can hold, names that look the same, and names that are odd."""

import os
from pathlib import Path

import pytest
from image_trees import TWO_DOMAINS, open_all, write_tree

from scale_ray.config import ConfigError
from scale_ray.data.benchmarks import DataError
from scale_ray.data.check import check_data
from scale_ray.data.decoded import domain_digest, domain_names
from scale_ray.data.names import is_text, look_alikes, quoted
from scale_ray.errors import shown

pytestmark = pytest.mark.usefixtures("own_cache")

LATIN = os.fsdecode(b"caf\xe9")  # `café` as an old system writes it


def latin(path: Path) -> Path:
    """Rename a file or folder to bytes that are not UTF-8; skip where the file system has UTF-8 names only."""
    new = path.with_name(path.name.replace(path.stem, LATIN))
    try:
        return path.rename(new)
    except OSError:
        pytest.skip("this file system refuses such names")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The message, which any stream can print in one line."""
    message = str(error.value)
    message.encode()
    assert message.isprintable()
    return message


@pytest.mark.parametrize("what", ["image", "class"])
def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_hashed(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    for domain in TWO_DOMAINS:
        latin(root / domain / "cat" / "0.jpg" if what == "image" else root / domain / "cat")
    place = f"{root}/photo/cat/caf\\xe9.jpg" if what == "image" else f"{root}/photo/caf\\xe9"
    for use in (lambda: open_all(root), lambda: domain_digest("image_folder", "photo", root=root)):
        with pytest.raises(DataError) as error:
            use()
        assert one_line(error) == f"{place}: its name is not UTF-8: rename it"
    assert capsys.readouterr().err == ""
    problems = [problem for problem in check_data("image_folder", root=root).problems if problem.kind == "names"]
    assert [problem.message.partition(":")[0] for problem in problems] == [
        place,
        place.replace("/photo/", "/sketch/"),
    ]
    assert all(problem.stops_training for problem in problems)


def test_of_many_such_names_the_first_is_named_and_all_are_counted(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    for label in ("cat", "dog"):
        latin(root / "photo" / label / "0.jpg")
    with pytest.raises(DataError, match=r"caf\\xe9\.jpg: its name is not UTF-8: rename it \(2 such names there\)$"):
        open_all(root)


def test_a_file_that_is_not_used_may_have_any_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_tree(tmp_path / "root", TWO_DOMAINS)
    (root / "photo" / "cat" / "notes.txt").write_text("")
    latin(root / "photo" / "cat" / "notes.txt")
    open_all(root)
    assert "photo: 1 file is not used: 1 of a format that is not read (.txt)" in caplog.text
    (problem,) = check_data("image_folder", root=root).problems
    assert problem.message.startswith(f"{root}/photo/cat/caf\\xe9.txt: not used")


def test_a_domain_that_is_not_utf_8_is_in_nobodys_way_and_is_refused_if_it_is_used(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {**TWO_DOMAINS, "third": {"cat": 1, "dog": 1}})
    latin(root / "third")
    open_all(root)
    with pytest.raises(ConfigError, match="is not a domain") as error:
        open_all(root, "photo", LATIN)
    one_line(error)
    with pytest.raises(ConfigError, match=r"no folder for domain 'x': it holds: caf\\xe9, photo, sketch"):
        open_all(root, "photo", "x")
    (problem,) = check_data("image_folder", root=root).problems
    assert (problem.kind, problem.message) == ("names", f"{root}/caf\\xe9: its name is not UTF-8: rename it")


@pytest.mark.parametrize("place", ["root", "parent"])
def test_a_root_that_is_not_utf_8_is_refused_and_a_link_to_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    write_tree(tmp_path / "here" / "root", TWO_DOMAINS)
    if place == "root":
        root = latin(tmp_path / "here" / "root")
    else:
        monkeypatch.chdir(latin(tmp_path / "here"))
        root = Path("root")
    with pytest.raises(ConfigError, match=r"--root .*caf\\xe9.*: this path is not UTF-8") as error:
        domain_digest("image_folder", "photo", root=root)
    one_line(error)
    (tmp_path / "link").symlink_to(root.absolute())
    assert len(open_all(tmp_path / "link")) == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ("caf\xe9", "cafe\u0301", r"'caf\xe9' look the same: they are spelled differently (composed and decomposed"),
        ("cat", "cat ", "'cat' and 'cat ' look the same: they are spelled differently (blanks at an end)"),
        ("big cat", "big\xa0cat", "look the same: they are spelled differently (characters that do not show)"),
        ("cat", "c\u200bat", r"'cat' and 'c\u200bat' look the same: they are spelled differently (characters that"),
    ],
)
def test_classes_that_look_the_same_are_said_to_be_two(tmp_path: Path, ours: str, theirs: str, message: str) -> None:
    root = write_tree(tmp_path / "root", {"photo": {ours: 1, "dog": 1}, "sketch": {theirs: 1, "dog": 1}})
    with pytest.raises(DataError, match="classes are not the same in every domain") as error:
        open_all(root)
    assert message in str(error.value)
    assert f"photo lacks '{theirs}' and also has '{ours}'" not in str(error.value), "their own are not theirs alone"
    assert f"photo lacks '{theirs}'; sketch lacks '{ours}'; " in str(error.value)
    kinds = [(problem.kind, message in problem.message) for problem in check_data("image_folder", root=root).problems]
    assert ("classes", True) in kinds


def test_a_domain_that_looks_like_the_one_named_is_shown(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"cafe\u0301": {"cat": 1, "dog": 1}})
    with pytest.raises(ConfigError) as error:
        open_all(root, "caf\xe9")
    assert r"'cafe\u0301' and 'caf\xe9' look the same" in str(error.value)


def test_classes_that_differ_to_the_eye_are_no_look_alikes() -> None:
    assert look_alikes(["cat", "cats", "caf\xe9", "cafe", "m2", "m\xb2"]) == []
    assert look_alikes(["cat", "cat"]) == []


def test_classes_that_differ_in_case_are_said_to() -> None:
    assert look_alikes(["Cat", "cat", "dog"]) == ["'Cat' and 'cat' differ in upper and lower case"]
    assert look_alikes(["STRASSE", "stra\xdfe"]) == ["'STRASSE' and 'stra\\xdfe' differ in upper and lower case"]


def test_names_are_shown_in_one_line() -> None:
    assert shown("a b/caf\xe9/\u732b") == "a b/caf\xe9/\u732b"
    assert shown("two\nlines\ttab\x1b[31m\u2028") == "two\\nlines\\ttab\\x1b[31m\\u2028"
    assert shown(os.fsdecode(b"\xff")) == "\\xff"
    assert shown("\ud800") == "\\ud800"
    assert quoted(["a ", LATIN]) == "'a ', 'caf\\xe9'"
    assert is_text("\u732b")
    assert not is_text("\ud800")


ODD = ["with space", 'it\'s "quoted"', "a#b", "100%", "two\nlines", "\u732b\U0001f408", "-", "a&b;c", "[red]", "$HOME"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_root_domain_class_and_image_are_read(tmp_path: Path, name: str) -> None:
    root = write_tree(tmp_path / name, {name: {name: 2, "dog": 2}, "sketch": {name: 2, "dog": 2}})
    (root / name / name / "0.jpg").rename(root / name / name / f"{name}.jpg")
    assert sorted(domain_names("image_folder", root=root)) == sorted([name, "sketch"])
    odd, sketch = open_all(root, name, "sketch")
    assert odd.name == name
    assert odd.classes == sketch.classes == tuple(sorted([name, "dog"]))
    assert odd.labels.tolist() == [0, 0, 1, 1]
    assert odd.digest == domain_digest("image_folder", name, root=root)
    report = check_data("image_folder", root=root)
    assert (report.images, report.problems) == ({name: 4, "sketch": 4}, [])
    (root / name / name / f"{name}.jpg").write_bytes(b"?")
    (problem,) = check_data("image_folder", root=root).problems
    assert problem.message == f"{shown(root / name / name / name)}.jpg: not an image of any known format"
    assert problem.message.isprintable()
