"""The published digits: from files in their real formats, over HTTP, to class folders."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_digits import COUNT, SIDES, Server, pixels, png, serving

from scale_ray.config import ConfigError
from scale_ray.data.benchmarks import BENCHMARKS, DataError
from scale_ray.data.check import check_data
from scale_ray.data.decoded import domain_digest, open_domains
from scale_ray.data.digits_standard import NAME, get, published_files

DOMAINS = BENCHMARKS[NAME].domains

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "published") as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "Digits"


def got(root: Path, *domains: str) -> list[tuple[str, int, bool]]:
    return [tuple(stored) for stored in get(NAME, root, domains)]


def failure(root: Path, domain: str) -> str:
    with pytest.raises(DataError) as error:
        got(root, domain)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_domain_has_the_images_and_classes_of_its_file(server: Server, root: Path) -> None:
    assert got(root) == [(domain, COUNT, True) for domain in DOMAINS]
    assert sorted(path.name for path in root.iterdir()) == sorted((*DOMAINS, "downloads"))
    places = [place for label in range(10) for place in (label, label + 10)]
    for domain in open_domains(NAME, DOMAINS, root=root, resize=32, corrupt="error"):
        assert domain.known_labels.tolist() == [place % 10 for place in places]
        for file, place in zip(domain.files, places, strict=True):
            assert np.array_equal(np.asarray(Image.open(root / domain.name / file)), pixels(domain.name, place))
        if SIDES[domain.name] == 32:  # nothing is scaled
            wanted = [pixels(domain.name, place).transpose(2, 0, 1) for place in places]
            assert np.array_equal(domain.images, np.stack(wanted))


def test_names_say_the_place_in_the_file_and_pngs_are_kept_as_they_are(server: Server, root: Path) -> None:
    got(root)
    assert sorted(path.name for path in (root / "usps" / "3").iterdir()) == ["00003.bmp", "00013.bmp"]
    assert (root / "mnistm" / "3" / "00000013.png").read_bytes() == png(13)


def test_the_digest_of_a_domain_is_the_same_on_every_machine(server: Server, root: Path) -> None:
    """Of what is stored as BMP. Another Pillow or zlib must not change it, or the ids of cells would change."""
    got(root, "mnist", "usps", "svhn")
    digests = {domain: domain_digest(NAME, domain, root=root)[:16] for domain in ("mnist", "usps", "svhn")}
    assert digests == {"mnist": "e5d450b023a10833", "usps": "6e5df860dad1fbf5", "svhn": "96532137c38e9514"}


def test_what_is_stored_or_downloaded_already_is_used(server: Server, root: Path) -> None:
    got(root, "usps", "svhn")
    assert server.asked == ["/usps.bz2", "/train_32x32.mat"]
    shutil.rmtree(root / "svhn")
    server.stop()
    assert got(root, "usps", "svhn") == [("usps", COUNT, False), ("svhn", COUNT, True)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_damaged_or_partial_download_is_replaced(
    domain: str, server: Server, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in published_files(domain):
        path = root / "downloads" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = (server.folder / path.name).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    assert got(root, domain) == [(domain, COUNT, True)]
    assert server.asked == [f"/{Path(file.path).name}" for file in published_files(domain)]
    assert f"{path} is damaged or incomplete: downloading it again" in caplog.messages


def test_what_a_dead_process_has_unpacked_in_part_is_not_read(server: Server, root: Path) -> None:
    raw = root / "downloads" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"half")
    assert got(root, "mnist") == [("mnist", COUNT, True)]


def test_a_domain_appears_when_it_is_complete(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def write_half(path: Path, content: bytes) -> int:
        if path.name == "00010.bmp":
            raise KeyboardInterrupt
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            got(root, "usps")
    assert not (root / "usps").exists()
    assert got(root, "usps") == [("usps", COUNT, True)]
    assert sorted(path.name for path in root.iterdir()) == ["downloads", "usps"]


def test_without_a_network_one_line_says_what_to_put_where(server: Server, root: Path) -> None:
    server.stop()
    path = root / "downloads" / "usps.bz2"
    line = failure(root, "usps")
    assert line.startswith(f"usps: {path} is missing and cannot be downloaded ({server.url}/usps.bz2: ")
    assert line.endswith("store what one of these URLs gives elsewhere as this file, and run again")
    path.write_bytes((server.folder / "usps.bz2").read_bytes())
    assert got(root, "usps") == [("usps", COUNT, True)]


def test_a_server_that_gives_something_else_is_not_believed(server: Server, root: Path) -> None:
    (server.folder / "mnist_m.tar.gz").write_bytes(b"<html>quota exceeded</html>")
    assert "mnist_m.tar.gz is missing and cannot be downloaded" in failure(root, "mnistm")
    # What came lies there now; it is known not to be the file.
    assert "mnist_m.tar.gz is damaged or incomplete and cannot be downloaded" in failure(root, "mnistm")
    (server.folder / "mnist_m.tar.gz").unlink()
    assert "HTTP Error 404: File not found" in failure(root, "mnistm")
    assert not (root / "mnistm").exists()


def test_a_file_with_the_right_md5_and_another_sha256_is_refused(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scale_ray.data.digits_standard.SHA256", {"train_32x32.mat": "0" * 64})
    assert "train_32x32.mat is not the published file (its sha256 is another one)" in failure(root, "svhn")


def test_a_folder_that_cannot_be_written_is_one_line(server: Server, root: Path) -> None:
    root.write_text("a file")
    assert failure(root, "usps").startswith(f"{root}: cannot be written (")


def test_only_this_benchmark_is_downloaded(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"pacs cannot be downloaded, only digits_standard can; .*Li et al."):
        list(get("pacs", root))
    with pytest.raises(ConfigError, match="digits_standard has no domain 'mnist_m': did you mean 'mnistm'"):
        got(root, "mnist_m")
    assert not root.exists()


def test_a_check_compares_the_number_of_images_with_what_is_published(server: Server, root: Path) -> None:
    """These files are small, and their boxes look alike in all domains."""
    got(root)
    report = check_data(NAME, root=root)
    assert report.images == dict.fromkeys(DOMAINS, COUNT)
    assert {problem.kind for problem in report.problems} == {"count", "leak"}
    assert [problem.message for problem in report.problems if problem.kind == "count"] == [
        f"{domain}: {COUNT} images, published: {BENCHMARKS[NAME].images[domain]}" for domain in sorted(DOMAINS)
    ]


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_published_files_have_digests_and_addresses(domain: str) -> None:
    for file in published_files(domain):
        assert len(file.md5) == 32
        assert all(url.startswith(("https://", "http://")) for url in file.urls)
