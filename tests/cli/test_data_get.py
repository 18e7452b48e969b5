"""`scale-ray data get digits_standard`, from a server on loopback, to the plan of a study."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import command, refused
from published_digits import COUNT, Server, serving

from scale_ray.data.benchmarks import BENCHMARKS

DOMAINS = BENCHMARKS["digits_standard"].domains


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "published") as server:
        yield server


@pytest.fixture
def root(server: Server, tmp_path: Path) -> Path:
    root = tmp_path / "Digits"
    assert command("data", "get", "digits_standard", root).status == 0
    return root


def test_get_says_what_it_stored_and_what_was_there(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "Digits"
    outcome = command("data", "get", "digits_standard", root, "--domain", "usps")
    assert (outcome.status, outcome.out) == (0, f"usps: {COUNT} images\n")
    outcome = command("data", "get", "digits_standard", root)
    assert outcome.out.splitlines() == [
        f"{domain}: {COUNT} images{', there already' if domain == 'usps' else ''}" for domain in DOMAINS
    ]


def test_get_without_a_network_is_one_line_with_address_and_place(server: Server, tmp_path: Path) -> None:
    server.stop()
    outcome = command("data", "get", "digits_standard", tmp_path / "Digits")
    place = tmp_path / "Digits" / "downloads" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    refused(outcome, f"mnist: {place} is missing", f"{server.url}/train-images-idx3-ubyte.gz", "as this file")


def test_get_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    refused(command("data", "get", "pacs", tmp_path), "pacs cannot be downloaded, only digits_standard can")
    refused(command("data", "get", "digits", tmp_path), "digits cannot be downloaded", "made on first use")


def test_check_counts_the_images(root: Path) -> None:
    outcome = command("data", "check", "digits_standard", "--root", root)
    assert outcome.status == 1  # as the published files have more images
    assert f"count: usps: {COUNT} images, published: 7291" in outcome.out.splitlines()
    assert "digits_standard: 80 images (mnist 20, mnistm 20, svhn 20, usps 20)" in outcome.out.splitlines()


def test_a_study_plans_the_usual_pairs(root: Path, tmp_path: Path) -> None:
    outcome = command(
        *("ablate", "--benchmark", "digits_standard", "--root", root, "--losses", "ce,ce+ssl", "--seeds", "1"),
        *("--store", tmp_path / "store", "--dry-run"),
    )
    assert outcome.status == 0, outcome.err
    for source, target in BENCHMARKS["digits_standard"].pairs:
        assert f"{source}>{target}" in outcome.out
    assert not (tmp_path / "store").exists()


def test_a_training_takes_the_images(root: Path, tmp_path: Path) -> None:
    outcome = command(
        *("train", "--benchmark", "digits_standard", "--root", root, "--source", "usps", "--target", "mnistm"),
        *("--method", "dann", "--steps", "2", "--device", "cpu", "--store", tmp_path / "store"),
        *("--set", "optim.batch_size=4"),
    )
    assert outcome.status == 0, outcome.err
