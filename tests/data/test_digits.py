"""The embedded benchmark: what it holds, and that it is the same bytes whoever draws it."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scale_ray.data import digits
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.cache import cache_folder
from scale_ray.data.check import check_data
from scale_ray.data.decoded import domain_digest, open_domains

DOMAINS = BENCHMARKS["digits"].domains


@pytest.mark.parametrize("name", DOMAINS)
def test_domain_holds_what_is_published(name: str) -> None:
    (domain,) = open_domains("digits", [name], root=None, resize=32, corrupt="error")
    assert domain.images.shape == (BENCHMARKS["digits"].images[name], 3, 32, 32)
    assert (domain.images.dtype, domain.labels.dtype) == (np.uint8, np.int64)
    assert domain.classes == tuple("0123456789")
    assert domain.skipped == ()
    counts = np.bincount(domain.labels, minlength=10)
    assert counts.max() - counts.min() <= (9 if name == "optdigits" else 0)
    assert len(set(domain.labels[:40])) > 5, "the order is shuffled"


@pytest.mark.parametrize("name", DOMAINS)
def test_drawing_again_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    digits.open_digits(name)
    digits.draw(name, tmp_path)
    kept = cache_folder() / f"digits-v{digits.VERSION}" / name
    assert sorted(path.name for path in kept.iterdir()) == ["images.npy", "labels.npy", "sha256"]
    for path in kept.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_two_processes_race_to_the_same_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = domain_digest("digits", "optdigits", root=None)
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path))
    code = "from scale_ray.data.decoded import domain_digest; print(domain_digest('digits', 'optdigits', root=None))"
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [racer.communicate()[0].strip() for racer in racers] == [wanted, wanted]
    assert [path.name for path in (tmp_path / f"digits-v{digits.VERSION}").iterdir()] == ["optdigits"]


def test_damaged_domain_is_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path))
    whole = domain_digest("digits", "optdigits", root=None)
    path = tmp_path / f"digits-v{digits.VERSION}" / "optdigits" / "images.npy"
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\x7f")
    with caplog.at_level(logging.WARNING):
        assert domain_digest("digits", "optdigits", root=None) == whole
    assert "optdigits is damaged" in caplog.text
    caplog.clear()
    domain_digest("digits", "optdigits", root=None)
    assert not caplog.text


def test_mnistm_shows_the_digit_that_its_label_names() -> None:
    drawn, labels = digits._mnistm(np.random.default_rng(0))
    plain, plain_labels = digits._mnist_digits()
    assert (labels == plain_labels).all()

    def edges(images: np.ndarray) -> np.ndarray:
        rows = np.abs(np.diff(images.astype(float), axis=1)).mean(axis=3).reshape(len(images), -1)
        rows -= rows.mean(axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    found, wanted = edges(drawn[::10]), edges(plain[::10])
    own = (found * wanted).sum(axis=1).mean()
    other = (found * np.roll(wanted, 250, axis=0)).sum(axis=1).mean()
    assert own > 0.4 > 2 * other


def test_fonts_are_text_fonts_only() -> None:
    names = [face.name for face in digits._text_faces()]
    assert "DejaVuSans.ttf" in names
    assert "STIXGeneral.ttf" in names
    assert "cmr10.ttf" in names
    assert not [name for name in names if name.startswith(("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNon"))]


def test_digests_differ_between_domains() -> None:
    assert len({domain_digest("digits", name, root=None) for name in DOMAINS}) == len(DOMAINS)


def test_other_sizes_are_resized() -> None:
    (domain,) = open_domains("digits", ["optdigits"], root=None, resize=48, corrupt="error")
    (native,) = open_domains("digits", ["optdigits"], root=None, resize=32, corrupt="error")
    assert domain.images.shape == (1797, 3, 48, 48)
    assert abs(domain.images.mean() - native.images.mean()) < 1
    assert (domain.labels == native.labels).all()


def test_check_finds_nothing_wrong() -> None:
    report = check_data("digits", root=None)
    assert report.images == BENCHMARKS["digits"].images
    assert report.problems == []
