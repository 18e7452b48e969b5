"""What a bundle consists of, as a folder and in memory.

model.safetensors   tensors `encoder.*` and `head.*`, with what the other files say in its metadata
config.json         the trial's config, the record's id, the digests of what it read
classes.json        names of the classes, in the order of the logits
preprocessing.json  from an image file to the network's input
README.md           the model card, with code that opens the bundle without scale_ray
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from scale_ray.bundle.predictor import State
from scale_ray.bundle.preprocessing import preprocessing
from scale_ray.config import ConfigError, TrialConfig
from scale_ray.errors import shown
from scale_ray.store.files import replace_file

MODEL, CONFIG, CLASSES, PREPROCESSING, CARD = (
    "model.safetensors", "config.json", "classes.json", "preprocessing.json", "README.md"
)  # fmt: skip
ONNX, TORCHSCRIPT = "model.onnx", "model.pt"  # other formats, which may lie beside
FILES = frozenset({MODEL, CONFIG, CLASSES, PREPROCESSING, CARD, ONNX, TORCHSCRIPT})

# Raise it whenever what older versions wrote can no longer be read in the same way.
BUNDLE_VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A trained model that needs no store.

    Attributes:
        record: id of the trial's record.
        config: of the trial.
        inputs: digests of what the trial read, by role.
        classes: names of the K classes, in the order of the logits.
        state: tensors `encoder.*` and `head.*`.
    """

    record: str
    config: TrialConfig
    inputs: dict[str, str]
    classes: tuple[str, ...]
    state: State

    @property
    def about(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "bundle_version": BUNDLE_VERSION,
            "record": self.record,
            "inputs": self.inputs,
            "config": self.config.model_dump(mode="json"),
        }


def is_bundle(folder: Path) -> bool:
    return (folder / MODEL).is_file() and (folder / CONFIG).is_file()


def write_beside(bundle: Bundle, card: str, folder: Path) -> list[str]:
    """Write what lies beside a model in any format, into a folder that is made where it is missing.

    Files of another model are removed, for these would describe them.

    Returns:
        Names of the other model's files, in any format.

    Raises:
        ConfigError: the folder holds something else, or cannot be made.
        StoreError: it cannot be written to.
    """
    _make_folder(folder)
    removed = _remove_another(bundle.record, folder)
    for name, content in _descriptions(bundle).items():
        replace_file(folder / name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    replace_file(folder / CARD, card.encode())
    return removed


def write_model(bundle: Bundle, folder: Path) -> None:
    """Write model.safetensors. It comes last: without it the folder is no bundle."""
    about = {name.partition(".")[0]: content for name, content in _descriptions(bundle).items()}
    tensors = {name: value.contiguous() for name, value in bundle.state.items()}
    # One entry: safetensors writes several in any order, and the same model is the same file.
    replace_file(folder / MODEL, safetensors.torch.save(tensors, {"scale_ray": json.dumps(about)}))


def _descriptions(bundle: Bundle) -> dict[str, Any]:
    return {CONFIG: bundle.about, CLASSES: list(bundle.classes), PREPROCESSING: preprocessing(bundle.config)}


def _make_folder(folder: Path) -> None:
    """Make a folder for a model's files.

    Raises:
        ConfigError: it cannot be made, or holds something else than a model's files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted({path.name for path in folder.iterdir() if not path.name.startswith(".")} - FILES)
    except OSError as error:
        raise ConfigError(f"--out {shown(folder)}: cannot be made ({error.strerror}): give another folder") from error
    if others:
        raise ConfigError(f"--out {shown(folder)}: holds other files ({shown(others[0])}): give a new folder")


def _remove_another(record: str, folder: Path) -> list[str]:
    """Remove the models in a folder where they are not of this record, or nothing says of which they are."""
    try:
        known = json.loads((folder / CONFIG).read_bytes())["record"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    removed = [name for name in (MODEL, ONNX, TORCHSCRIPT) if (folder / name).exists()] if known != record else []
    for name in removed:
        try:
            (folder / name).unlink()
        except OSError as error:
            raise ConfigError(
                f"--out {shown(folder / name)}: of another model, and cannot be removed ({error.strerror}): give a new "
                "folder"
            ) from error
    return removed


def read_card(folder: Path) -> str:
    """The model card of a bundle's folder.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return (folder / CARD).read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(folder)}: its {CARD} cannot be read ({error}): export it again") from error


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's folder.

    Raises:
        ConfigError: it is damaged, or a later version has written it.
    """
    try:
        about = json.loads((folder / CONFIG).read_bytes())
        classes = json.loads((folder / CLASSES).read_bytes())
        version = about["bundle_version"]
        if version != BUNDLE_VERSION:
            raise ConfigError(
                f"{shown(folder)}: a bundle of version {shown(str(version))}, this scale-ray reads {BUNDLE_VERSION}: "
                "use the version that wrote it"
            )
        config = TrialConfig.model_validate(about["config"])
        with safe_open(folder / MODEL, framework="pt") as file:
            of_model = json.loads(file.metadata()["scale_ray"])["config"]
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{shown(folder)}: not a readable bundle ({reason}): export it again") from error
    if of_model["record"] != about["record"]:
        raise ConfigError(f"{shown(folder)}: {MODEL} and {CONFIG} are of different trials: export it again")
    return Bundle(about["record"], config, about["inputs"], tuple(classes), state)
