"""Bundles: they predict what their trial predicted, open without scale_ray, and say what is wrong with them."""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torchvision.transforms.functional import center_crop, normalize

from scale_ray import METHODS, UserError, load_model, training_function
from scale_ray.bundle.bare import bare_code
from scale_ray.bundle.contents import Bundle, read_bundle, write_beside, write_model
from scale_ray.bundle.export import export
from scale_ray.bundle.find import find_model
from scale_ray.bundle.images import read_pixels
from scale_ray.bundle.model import Model
from scale_ray.config import Execution, TrialConfig
from scale_ray.data.views import evaluation_view
from scale_ray.methods.function import TrainingData
from scale_ray.models import build_encoder
from scale_ray.models.backbones import feature_dim
from scale_ray.records import Record
from scale_ray.store import Store
from scale_ray.training.trial import run_trial

# Half the distance of two float16 numbers just below 1, which is that of a stored probability.
FLOAT16 = 2.0**-12

TIMM = {"model.backbone": "timm:test_efficientnet.r160_in1k", "data.image_size": 32, "data.resize": 36}

KINDS = {
    "statistics of the target": {},
    "statistics of the whole target": {"model.target_statistics": "whole"},
    "statistics of both domains": {"model.batch_norm": "joint"},
    "frozen statistics": {"model.batch_norm": "frozen"},
    "every location": {"model.contrast_level": "spatial"},
    "bfloat16": {"optim.precision": "bf16"},
    "squares of the middle": {"data.fit": "crop", "data.resize": 20},
    "source-free": {"method": "shot", "losses.terms": "ce"},
    "discriminator": {"method": "dann", "losses.terms": "ce"},
    "linear": {"method": "source_only", "losses.terms": "ce", "model.head": "linear"},
    "timm": TIMM,
}

WHERE_FROZEN = {
    "mlp": {},
    "whole target": {"model.target_statistics": "whole"},
    "bfloat16": {"optim.precision": "bf16"},
    "linear": {"method": "source_only", "losses.terms": "ce", "model.head": "linear", "model.bottleneck_dim": 256},
    "prototypes": {"method": "prototypes", "losses.terms": "ce"},
    "source-free": {"method": "aad", "losses.terms": "ce"},
}


def trained(config: TrialConfig, root: Path, folder: Path, **execution: bool) -> tuple[Store, Record]:
    store = Store(folder, create=True)
    record = run_trial(config, Execution(root=root, device="cpu", keep_predictions=True, **execution), store)
    return store, record


def assert_predicts_as_its_trial(store: Store, record: Record, out: Path, root: Path, within: float = FLOAT16) -> None:
    export(f"{store.location}/{record.id}", out)
    model = load_model(out, device="cpu")
    found = model.probabilities(root / record.config.data.target)
    expected = store.read_predictions(record)
    assert expected is not None
    assert model.classes == expected.classes
    assert np.abs(found - expected.probabilities.astype(float)).max() <= within
    assert np.array_equal(found.argmax(axis=1), expected.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_predicts_what_its_trial_predicted(
    kind: str, tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, record = trained(tiny_config.replace(KINDS[kind]), tiny_root, tmp_path / "store", keep_model=True)
    assert_predicts_as_its_trial(store, record, tmp_path / "model", tiny_root)


@pytest.mark.parametrize("kind", WHERE_FROZEN)
def test_so_does_one_of_a_frozen_encoder_which_is_kept_by_default(
    kind: str, frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, record = trained(frozen_config.replace(WHERE_FROZEN[kind]), tiny_root, tmp_path / "store")
    # The trial read features in float16, the bundle computes them; whitening makes more of the difference.
    within = 0.02 if kind in ("prototypes", "bfloat16") else 2e-3
    assert_predicts_as_its_trial(store, record, tmp_path / "model", tiny_root, within)


def test_prototypes_above_an_encoder_that_is_not_frozen(
    tiny_config: TrialConfig, lenet_weights: Path, tiny_root: Path, tmp_path: Path
) -> None:
    changes = {"method": "prototypes", "losses.terms": "ce", "model.weights": str(lenet_weights)}
    config = tiny_config.replace({**changes, "optim.precision": "bf16"})
    store, record = trained(config, tiny_root, tmp_path / "store", keep_model=True)
    assert_predicts_as_its_trial(store, record, tmp_path / "model", tiny_root, 2e-3)


def test_the_targets_statistics_are_what_is_folded(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    """Loaded by names alone, the source's statistics would be in their place: the bundle has no others."""
    store, record = trained(tiny_config, tiny_root, tmp_path, keep_model=True)
    kept = safetensors.torch.load_file(store.model_location(record.id))
    state = find_model(f"{tmp_path}/{record.id[:8]}").bundle.state
    assert not any("target" in name for name in state)
    assert torch.equal(state["encoder.0.2.running_mean"], kept["encoder.0.2.target_mean"])
    assert not torch.equal(state["encoder.0.2.running_mean"], kept["encoder.0.2.running_mean"])
    assert torch.equal(state["head.1.running_var"], kept["classifier.1.target_var"])


# What a store keeps


def test_a_trained_encoder_is_kept_on_request_alone(
    tiny_config: TrialConfig, frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, record = trained(tiny_config, tiny_root, tmp_path)
    assert store.read_model(record.id) is None
    with pytest.raises(UserError, match=r"is not stored: run its command again with --keep-model"):
        find_model(tmp_path)
    _, without = trained(frozen_config, tiny_root, tmp_path, keep_model=False)
    assert store.read_model(without.id) is None


def test_a_finished_cell_is_trained_again_for_its_model_only_where_it_is_asked_for(
    frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, record = trained(frozen_config, tiny_root, tmp_path, keep_model=False)
    _, same = trained(frozen_config, tiny_root, tmp_path)
    assert same.provenance == record.provenance
    assert store.read_model(record.id) is None
    _, again = trained(frozen_config, tiny_root, tmp_path, keep_model=True)
    assert again.result == record.result
    assert store.read_model(record.id) is not None


def test_a_stored_model_says_what_it_is_and_older_ones_are_read(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, record = trained(tiny_config, tiny_root, tmp_path, keep_model=True)
    file = Path(store.model_location(record.id))
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["scale_ray"])
    assert (about["record"], about["classes"]) == (record.id, ["checks", "columns", "rows"])
    assert about["config"] == record.config.model_dump(mode="json")
    state = find_model(tmp_path).bundle.state
    safetensors.torch.save_file(safetensors.torch.load_file(file), file)  # as version 0.1.0 wrote it
    older = find_model(tmp_path).bundle.state
    assert all(torch.equal(older[name], state[name]) for name in state)


def test_weights_of_a_frozen_encoder_are_those_of_the_record(
    frozen_config: TrialConfig, lenet_weights: Path, tiny_root: Path, tmp_path: Path
) -> None:
    here = shutil.copy(lenet_weights, tmp_path / "here.safetensors")
    store, _ = trained(frozen_config.replace({"model.weights": str(here)}), tiny_root, tmp_path / "store")
    expected = find_model(store.location).bundle
    moved = Path(here).rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"here\.safetensors: .* are not there: name the file with --weights FILE"):
        find_model(store.location)
    found = find_model(store.location, moved).bundle
    assert all(torch.equal(found.state[name], expected.state[name]) for name in expected.state)
    torch.save(build_encoder("lenet", "none").state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not the weights that the trial was trained with \(sha256 "):
        find_model(store.location, tmp_path / "other.pth")


def test_clip_has_no_bundle(clip_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    trained(clip_config.replace({"method": "clip_zero_shot"}), tiny_root, tmp_path, keep_model=True)
    with pytest.raises(UserError, match="method 'clip_zero_shot' predicts by other layers"):
        find_model(tmp_path)


# How a model is named


def test_a_record_is_named_by_its_store_its_file_or_the_first_digits_of_its_id(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = trained(tiny_config, tiny_root, tmp_path / "store", keep_model=True)
    monkeypatch.chdir(tmp_path)
    for where in ("store", "store/", f"store/{record.id[:4]}", f"store/records/{record.id}.json", tmp_path / "store"):
        assert find_model(where).record == record
    monkeypatch.chdir(tmp_path / "store")
    assert find_model(f"records/{record.id}.json").record == record
    named_as_an_id = Path(shutil.copytree(store.location, tmp_path / record.id[:4]))
    assert find_model(named_as_an_id).record == record
    with pytest.raises(UserError, match=r"store .*store has no record 'abcdef'"):
        find_model(f"{store.location}/abcdef")
    with pytest.raises(UserError, match="a record is read where its store has it"):
        find_model(shutil.copy(store.record_location(record.id), tmp_path / f"{record.id}.json"))
    other = run_trial(tiny_config.replace({"seed": 1}), Execution(root=tiny_root, device="cpu"), store)
    with pytest.raises(UserError, match=rf"2 records may be meant: .*{min(record.id, other.id)[:12]} \(plain>inverted"):
        find_model(store.location)


# The folder


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return made_up()


def made_up(changes: dict | None = None, **of_head: int) -> Bundle:
    """A network of random numbers; its BatchNorm layers have statistics that matter."""
    torch.manual_seed(3)
    small = {"model.backbone": "lenet", "model.weights": "none", "data.image_size": 32, "data.resize": 40}
    config = TrialConfig().replace({**small, "optim.precision": "float32", **(changes or {})})
    encoder = build_encoder(config.model.backbone, "none", config.data.image_size)
    width = feature_dim(config.model.backbone, config.data.image_size)
    head: nn.Module = nn.Sequential(
        nn.Linear(width, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 9),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Linear(9, 4),
    )
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    if of_head.get("linear"):
        head = nn.Sequential(nn.Linear(width, 4))
    if of_head.get("prototypes"):
        numbers = {"mean": (width,), "whitening": (width, width), "prototypes": (4, width)}
        state |= {f"head.0.{name}": torch.randn(shape) for name, shape in numbers.items()}
    else:
        state |= {f"head.{name}": value for name, value in head.state_dict().items()}
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(std=0.3)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    return Bundle("ab" * 32, config, {"source": "1", "target": "2"}, ("ant", "bee", "cat", "dog"), state)


def photo(path: Path) -> Path:
    """A JPEG that the decoder may scale, and that lies on its side."""
    pixels = np.random.default_rng(1).integers(0, 256, (13, 17, 3), np.uint8)
    image = Image.fromarray(pixels).resize((340, 260))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(path, exif=exif)
    return path


BARE = {
    "lenet": {},
    "at every location": {"model.contrast_level": "spatial"},
    "squares of the middle": {"data.fit": "crop"},
    "mobilenet_v2": {"model.backbone": "mobilenet_v2"},
    "resnet18": {"model.backbone": "resnet18"},
    "resnet18 at every location": {
        "model.backbone": "resnet18",
        "model.contrast_level": "spatial",
        "data.image_size": 40,
    },
    "a transformer of timm": {"model.backbone": "timm:test_vit.r160_in1k"},
    "maps of timm": {"model.backbone": "timm:test_efficientnet.r160_in1k"},
}


@pytest.mark.parametrize(
    ("changes", "head"),
    [*((BARE[kind], {}) for kind in BARE), ({}, {"linear": 1}), ({}, {"prototypes": 1})],
    ids=[*BARE, "linear", "prototypes"],
)
def test_the_cards_code_opens_it_without_scale_ray(
    changes: dict, head: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up(changes, **head)
    write_beside(made, bare_code(made), tmp_path)
    write_model(made, tmp_path)
    code = (tmp_path / "README.md").read_text()
    assert "scale_ray" not in code
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    path = photo(tmp_path / "photo.jpg")
    model = Model(read_bundle(tmp_path), "cpu")
    expected = dict(zip(made.classes, model.probabilities(path)[0], strict=True))
    assert names["predict"](str(path)) == pytest.approx(expected, abs=1e-5)
    assert max(expected.values()) < 0.999  # certain predictions would hide a difference


def of_12_bits(path: Path) -> None:
    """A TIFF, which Pillow cannot write: two values of 12 bits in three bytes, four in a row."""
    pixels = np.random.default_rng(5).integers(0, 256, 4 * 6, np.uint8).tobytes()
    tags = [(256, 4), (257, 4), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, 24)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 32) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4))


def odd_images(folder: Path) -> list[Path]:
    """Images of which a plain `convert("RGB")` makes other pixels than the decoder of a training, and others."""
    numbers = np.random.default_rng(4).integers(0, 256, (40, 50, 4), np.uint8)
    numbers[:, :25, 3] = 0  # one half is transparent
    colours, grey = Image.fromarray(numbers), Image.fromarray(numbers[..., 0])
    deep = Image.fromarray(numbers[..., 0].astype(np.uint16) * 257)
    palette = grey.convert("P")
    of_12_bits(folder / "twelve.tif")
    colours.save(folder / "alpha.png")
    colours.save(folder / "alpha.webp", lossless=True)
    colours.convert("LA").save(folder / "grey_alpha.png")
    palette.save(folder / "palette.png", transparency=7)
    colours.convert("RGB").save(folder / "colour.png", transparency=tuple(numbers[0, 0, :3].tolist()))
    colours.convert("CMYK").save(folder / "inks.jpg")
    grey.convert("1").save(folder / "bits.png")
    grey.save(folder / "grey.gif", save_all=True, append_images=[grey.rotate(180)])
    deep.save(folder / "deep.png")
    deep.save(folder / "deep.tif")
    deep.save(folder / "negative.tif", tiffinfo={262: 0})
    return sorted(folder.iterdir())


def test_the_cards_code_sees_the_pixels_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_up({"data.image_size": 32, "data.resize": 32})
    (tmp_path / "model").mkdir()
    (tmp_path / "images").mkdir()
    write_beside(made, "", tmp_path / "model")
    write_model(made, tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    names: dict = {}
    exec(compile(bare_code(made), "README.md", "exec"), names)
    for path in odd_images(tmp_path / "images"):
        with Image.open(path) as image:
            image.draft(None, (64, 64))
            found = np.asarray(names["rgb"](image).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal(found, read_pixels(path, made.config.data)), path.name


def test_preprocessing_alone_gives_the_networks_input(bundle: Bundle, tmp_path: Path) -> None:
    write_beside(bundle, "", tmp_path)
    steps = json.loads((tmp_path / "preprocessing.json").read_text())
    path = photo(tmp_path / "photo.jpg")
    with Image.open(path) as image:
        image.draft(None, tuple(steps["decode"]["jpeg_draft"]))
        upright = image.transpose(Image.Transpose.ROTATE_270).convert(steps["decode"]["mode"])
    side = steps["resize"]["size"]
    resized = upright.resize((side, side), Image.Resampling[steps["resize"]["interpolation"].upper()])
    cropped = center_crop(torch.from_numpy(np.array(resized)).permute(2, 0, 1), [steps["centre_crop"]] * 2)
    found = normalize(cropped / 255, **steps["normalise"])
    pixels = torch.from_numpy(read_pixels(path, bundle.config.data)[None].copy())
    assert torch.equal(found, evaluation_view(pixels, size=bundle.config.data.image_size)[0])


def test_the_card_says_what_is_known(frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    store, record = trained(frozen_config, tiny_root, tmp_path / "store")
    assert record.result is not None
    export(store.location, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    for known in (
        record.id,
        record.inputs["target"],
        f"| accuracy on the target | {record.result.target_accuracy:.2f} % |",
        f"| circular | {record.result.validators['circular']:.4f} |",
        f"(sha256 `{record.inputs['weights']}`) whose licence scale_ray does not know",
        "| images of inverted | 48 |",
    ):
        assert known in card
    assert json.loads((tmp_path / "model" / "classes.json").read_text()) == record.result.classes
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (about["record"], about["config"]) == (record.id, record.config.model_dump(mode="json"))
    again = export(tmp_path / "model", tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == card
    assert again.file.read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()


def test_a_bundle_alone_is_enough(frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    store, record = trained(frozen_config, tiny_root, tmp_path / "store")
    export(store.location, tmp_path / "model")
    expected = load_model(store.location, device="cpu").probabilities(tiny_root / "inverted")
    shutil.rmtree(tmp_path / "store")
    model = load_model(tmp_path / "model", device="cpu")
    assert np.array_equal(model.probabilities(tiny_root / "inverted"), expected)
    assert (model.record, model.classes) == (record.id, ("checks", "columns", "rows"))


def test_a_folder_with_other_files_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes\.txt\): give a new folder"):
        write_beside(bundle, "", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("nothing_says_of_which", [False, True])
def test_a_folder_has_the_files_of_one_model(nothing_says_of_which: bool, bundle: Bundle, tmp_path: Path) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "out"
    for folder, record in ((first, "ab" * 32), (second, "cd" * 32)):
        made = replace(bundle, record=record)
        write_beside(made, "card", folder)
        write_model(made, folder)
    assert export(first, out, format="torchscript").removed == []
    assert export(first, out).removed == []
    if nothing_says_of_which:
        (out / "config.json").unlink()
    found = export(second, out)
    assert set(found.removed) == {"model.safetensors", "model.pt"}
    assert load_model(out, device="cpu").record == "cd" * 32
    assert not (out / "model.pt").exists()


@pytest.mark.parametrize("damage", ["no json", "no model", "another", "newer"])
def test_a_damaged_bundle_is_one_line(damage: str, bundle: Bundle, tmp_path: Path) -> None:
    write_beside(bundle, "", tmp_path)
    write_model(bundle, tmp_path)
    config, model = tmp_path / "config.json", tmp_path / "model.safetensors"
    if damage == "no json":
        config.write_bytes(config.read_bytes()[:-20])
    elif damage == "no model":
        model.write_bytes(model.read_bytes()[:100])
    elif damage == "another":
        config.write_text(config.read_text().replace("ab" * 32, "cd" * 32))
    else:
        config.write_text(config.read_text().replace('"bundle_version": 1', '"bundle_version": 2'))
    told = {"another": "are of different trials", "newer": "a bundle of version 2, this scale-ray reads 1"}
    with pytest.raises(UserError, match=told.get(damage, "not a readable bundle")) as raised:
        load_model(tmp_path)
    assert "\n" not in str(raised.value)


def tied(data: TrainingData) -> nn.Module:
    """Two layers with the same weights, which safetensors refuses to write."""
    first = nn.Linear(96, 96)
    second = nn.Linear(96, 96)
    second.weight = first.weight
    return nn.Sequential(first, second, nn.Linear(96, len(data.classes)))


def test_what_a_function_of_ones_own_returns_is_not_kept_by_default(
    frozen_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    METHODS["mine"] = training_function(tied)
    store, record = trained(frozen_config.replace({"method": "mine", "losses.terms": "ce"}), tiny_root, tmp_path)
    assert record.status == "done"
    assert store.read_model(record.id) is None
