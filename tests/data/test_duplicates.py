"""Images that are twice there, within a domain and across domains, and classes of odd sizes."""

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from image_trees import write_tree
from PIL import Image, ImageEnhance

from scale_ray.data.check import Finding, check_data, duplicates
from scale_ray.data.check.classes import class_sizes
from scale_ray.data.check.duplicates import near_partners
from scale_ray.data.check.findings import ordered
from scale_ray.data.check.images import SIDE, Images, read_images
from scale_ray.data.domain_files import DomainFiles, class_folders

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(seed: int) -> Image.Image:
    """A picture of its own: large patches, whose hash is that of no other seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(patches).resize((240, 180), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two domains, two classes, four pictures each; no two are alike."""
    places = [(d, c, n) for d in ("phone", "studio") for c in ("bag", "mug") for n in range(4)]
    for seed, (domain, name, number) in enumerate(places):
        save(picture(seed), tmp_path / "root" / domain / name / f"{number}.png")
    return tmp_path / "root"


def found(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    report = check_data("image_folder", root=root)
    return [(finding.kind, finding.names) for finding in (*report.problems, *report.notes)]


def test_different_pictures_are_no_duplicates(root: Path) -> None:
    assert found(root) == []


def test_the_same_file_in_two_domains_is_named_first(root: Path) -> None:
    phone, studio = root / "phone", root / "studio"
    (studio / "bag" / "9.png").write_bytes((phone / "mug" / "2.png").read_bytes())
    (phone / "bag" / "9.png").write_bytes((phone / "bag" / "0.png").read_bytes())
    (phone / "bag" / "8.png").write_bytes((phone / "mug" / "1.png").read_bytes())
    assert found(root) == [
        ("leak", ("phone/mug/2.png = studio/bag/9.png",)),
        ("labels", ("mug/1.png = bag/8.png",)),
        ("copies", ("bag/9.png = bag/0.png",)),
    ]
    leak = check_data("image_folder", root=root).problems[0]
    assert not leak.stops_training
    assert leak.message == (
        f"{root}/phone/mug/2.png = studio/bag/9.png: same files in phone and studio: accuracy on the target would be "
        "measured on images of the training: remove from one of the two"
    )


def test_many_copies_of_one_file_are_counted_on_the_side_that_has_more(root: Path) -> None:
    content = (root / "phone" / "mug" / "0.png").read_bytes()
    for number in (7, 8, 9):
        (root / "studio" / "mug" / f"{number}.png").write_bytes(content)
    leak, copies = check_data("image_folder", root=root).problems
    assert [name.partition(" = ")[0] for name in leak.names] == ["phone/mug/0.png"] * 3
    assert copies.names == ("mug/8.png = mug/7.png", "mug/9.png = mug/7.png")
    assert leak.message.startswith(f"{root}: 3 images (such as phone/mug/0.png = studio/mug/7.png, ")


CHANGES = {
    "another format": lambda image, path: save(image, path.with_suffix(".webp"), lossless=True),
    "compressed": lambda image, path: save(image, path.with_suffix(".jpg"), quality=40),
    "smaller": lambda image, path: save(image.resize((120, 90)), path.with_suffix(".jpg")),
    "brighter": lambda image, path: save(ImageEnhance.Brightness(image).enhance(0.8), path.with_suffix(".png")),
    "in grey": lambda image, path: save(image.convert("L"), path.with_suffix(".png")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates_are_found_across_and_within_domains(root: Path, change: str) -> None:
    CHANGES[change](picture(2), root / "studio" / "mug" / "far")  # phone/bag/2
    CHANGES[change](picture(1), root / "phone" / "mug" / "near")  # phone/bag/1
    (leak,) = check_data("image_folder", root=root).problems
    assert leak.kind == "leak"
    assert leak.names[0].startswith("phone/bag/2.png ~ studio/mug/far.")
    (alike,) = check_data("image_folder", root=root).notes
    assert alike.kind == "alike"
    assert alike.names[0].startswith("mug/near.")
    assert alike.names[0].endswith(" ~ bag/1.png")


def test_pictures_with_one_outline_are_told_apart_by_what_is_in_it(root: Path) -> None:
    """Both are a disc on white, so that their hashes are close; one disc is flat and one has a chequered middle."""
    ys, xs = np.mgrid[-1:1:240j, -1:1:240j]
    disc = xs**2 + ys**2 < 0.6
    plain = np.where(disc, 90, 255).astype(np.uint8)
    inside = disc & (((xs * 12).astype(int) + (ys * 12).astype(int)) % 2 == 0)
    save(Image.fromarray(plain), root / "phone" / "bag" / "disc.png")
    save(Image.fromarray(np.where(inside, 250, plain).astype(np.uint8)), root / "studio" / "bag" / "disc.png")
    assert found(root) == []


def test_one_coloured_images_have_nothing_to_compare(tmp_path: Path) -> None:
    tree = {"phone": {"bag": 3, "mug": 3}, "studio": {"bag": 3, "mug": 3}}
    assert found(write_tree(tmp_path / "root", tree)) == []


def made_up(thumbs: np.ndarray, domains: list[int]) -> Images:
    names = [f"mug/{number}.png" for number in range(len(thumbs))]
    folders, labels = (Path("phone"), Path("studio")), ["mug"] * len(thumbs)
    return Images(("phone", "studio"), folders, names, labels, np.array(domains), [b""] * len(thumbs), thumbs)


def random_thumbs(count: int) -> np.ndarray:
    cells = np.random.default_rng(0).integers(0, 256, (count, 6, 6), np.uint8)
    return cells.repeat(SIDE // 6, axis=1).repeat(SIDE // 6, axis=2).reshape(count, SIDE * SIDE)


def test_partners_in_small_blocks_are_those_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    thumbs = random_thumbs(60)
    twins = {40: 3, 41: 25, 59: 58, 30: 29}
    for image, other in twins.items():
        thumbs[image] = thumbs[other]
        thumbs[image, :5] ^= 1
    images = made_up(thumbs, [0] * 30 + [1] * 30)
    whole = near_partners(images, np.arange(60))
    wanted = np.full((60, 2), -1)
    wanted[[40, 41, 30], 0] = [3, 25, 29]  # those of studio, in phone
    wanted[[3, 25, 29], 1] = [40, 41, 30]
    wanted[59, 1] = 58  # within studio: the later one alone
    assert whole.tolist() == wanted.tolist()
    for name, size in (("_ROWS", 7), ("_COLUMNS", 11), ("_AT_ONCE", 3)):
        monkeypatch.setattr(duplicates, name, size)
    assert near_partners(images, np.arange(60)).tolist() == whole.tolist()


def test_all_images_alike_are_each_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair is a candidate; far fewer are compared."""
    monkeypatch.setattr(duplicates, "_AT_ONCE", 512)
    compared = []
    correlations = duplicates._correlations
    monkeypatch.setattr(
        duplicates, "_correlations", lambda some, others: compared.append(len(some)) or correlations(some, others)
    )
    thumbs = random_thumbs(1).repeat(600, axis=0)
    thumbs[np.arange(600), np.arange(600) % (SIDE * SIDE)] ^= 1
    partners = near_partners(made_up(thumbs, [0] * 300 + [1] * 300), np.arange(600))
    assert (partners >= 0).sum() == 600 + 299 + 299
    assert (partners[300:, 0] < 300).all()
    assert (partners[:300, 1] >= 300).all()
    later = np.flatnonzero(partners[:, 0] >= 0)
    assert (partners[later, 0] < later).all()
    assert sum(compared) < 600 * 599 / 2 / 10


def test_what_is_kept_of_an_image_is_some_hundred_bytes(root: Path) -> None:
    domains = {name: class_folders(name, root / name) for name in ("phone", "studio")}
    for name, files in domains.items():
        names = ("bag/0.png", "bag/1.png", "mug/gone.png", "mug/2.png")
        domains[name] = dataclasses.replace(files, names=names, labels=(0, 0, 1, 1))
    images, findings = read_images(domains)
    assert images.names == ["bag/0.png", "bag/1.png", "mug/2.png"] * 2
    assert images.labels == ["bag", "bag", "mug"] * 2
    assert images.domain_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert (images.thumbs.shape, images.thumbs.dtype) == ((6, SIDE * SIDE), np.uint8)
    grey = np.asarray(
        Image.open(BytesIO((root / "phone" / "bag" / "0.png").read_bytes())).convert("L").resize((24, 24))
    )
    assert np.abs(images.thumbs[0].reshape(24, 24).astype(int) - grey).max() < 40
    assert [(finding.kind, finding.names) for finding in findings] == [("unreadable", ("mug/gone.png",))] * 2


# Sizes


def made_up_files(name: str, counts: dict[str, int]) -> DomainFiles:
    labels = [label for label, count in enumerate(counts.values()) for _ in range(count)]
    names = tuple(map(str, range(len(labels))))
    return DomainFiles(name, f"root/{name}", names, tuple(labels), tuple(counts), read=str.encode, digests=list)


def sizes(**domains: dict[str, int]) -> list[str]:
    found = class_sizes({name: made_up_files(name, classes) for name, classes in domains.items()})
    assert all(finding.is_note for finding in found)
    return [f"{finding.kind}: {finding.message}" for finding in found]


def test_classes_too_small_to_split_are_named() -> None:
    assert sizes(phone={"bag": 2, "mug": 1}, studio={"bag": 2, "mug": 2}) == [
        "small: root/phone: 1 class has one image only ('mug'): as a source, none can be held out: add images"
    ]
    (line,) = sizes(phone=dict.fromkeys("abcde", 1))
    assert line.startswith("small: root/phone: 5 classes have one image only ('a', 'b', 'c' …): as a source")


def test_sizes_that_differ_much_are_named() -> None:
    assert sizes(phone={"bag": 2, "mug": 10}, studio={"bag": 2, "mug": 9}) == [
        "balance: root/phone: classes differ in size: 'mug' has 10 images and 'bag' 2, 5 times fewer"
    ]
    assert sizes(phone={"bag": 3, "mug": 3}, studio={"bag": 15, "mug": 15}) == [
        "balance: domains differ in size: 'studio' has 30 images and 'phone' 6, 5 times fewer"
    ]
    assert sizes(phone={"bag": 3, "mug": 0}) == [], "a class without images is another finding"


def test_shares_that_differ_between_domains_are_named() -> None:
    few, many = {"bag": 2, "mug": 8, "tie": 4}, {"bag": 8, "mug": 2, "tie": 4}
    assert sizes(phone=few, studio=many) == []  # 14 % and 57 %: 4 times
    few, many = {"bag": 2, "mug": 9, "tie": 9}, {"bag": 10, "mug": 8, "tie": 2}
    (_, line) = sizes(phone=few, studio=many)
    assert line == "balance: class 'bag' is 10.0% of phone and 50.0% of studio"


def test_findings_are_ordered_by_what_is_worst() -> None:
    kinds = ["read", "copies", "leak", "unreadable", "balance", "missing"]
    found = ordered(Finding(kind, "") for kind in kinds)
    assert [finding.kind for finding in found] == ["missing", "unreadable", "leak", "copies", "balance", "read"]
