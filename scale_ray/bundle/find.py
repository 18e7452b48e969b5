"""From what a person names, a bundle's folder, a record, or a store and an id, to a bundle."""

import json
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from scale_ray.bundle.contents import Bundle, is_bundle, read_bundle
from scale_ray.bundle.predictor import State, bundle_state
from scale_ray.config import ConfigError
from scale_ray.errors import shown
from scale_ray.models import build_encoder
from scale_ray.models.weights import WeightsError, weights_digest
from scale_ray.records import Record
from scale_ray.store import Store, StoreError, is_current, is_start
from scale_ray.store.files import Files
from scale_ray.study import describe, differing_fields
from scale_ray.urls import is_url

_SHOWN = 5  # records that a message names


class Found(NamedTuple):
    """A bundle, and its trial's record where it comes from a store."""

    bundle: Bundle
    record: Record | None


def find_model(where: str | Path, weights: str | Path | None = None) -> Found:
    """Open a trained model.

    Args:
        where: the folder of a bundle; STORE/ID with the first digits of a record's id; STORE/records/ID.json; or a
            store with one record.
        weights: where the weights file of a frozen encoder is now; by default where the record says.

    Raises:
        UserError: there is no such thing, its model is not stored, or the weights are not those of the record.
    """
    text = str(where)
    if not is_url(text) and is_bundle(Path(text).expanduser()):
        if weights is not None:
            raise ConfigError("--weights: a bundle has its encoder's weights: leave it out")
        return Found(read_bundle(Path(text).expanduser()), None)
    store, record = find_record(text)
    return Found(bundle_of(store, record, None if weights is None else str(weights)), record)


def find_record(text: str) -> tuple[Store, Record]:
    """The store and the record that `STORE`, `STORE/ID` or `STORE/records/ID.json` names.

    Raises:
        StoreError: there is no such store or record, or several records may be meant.
    """
    location, wanted = _store_and_id(text.rstrip("/"))
    store = Store(location)
    ids = [each for each in store.record_ids() if each.startswith(wanted)]
    if not ids:
        raise StoreError(
            f"{shown(text)}: "
            + (
                f"store {store.location} has no record {wanted!r}"
                if wanted
                else "neither a bundle nor a store with records"
            )
            + _remedy(text)
        )
    if len(ids) > 1:
        named = list(store.records(ids[:_SHOWN]))
        fields = differing_fields([each.config for each in named])
        first = (f"{each.id[:12]} ({describe(each.config, fields)})" for each in named)
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        raise StoreError(
            f"{shown(text)}: {len(ids)} records may be meant: name one by its id, as in "
            f"{store.location}/{ids[0][:12]}: {', '.join(first)}{more}"
        )
    record = store.read_record(ids[0])
    assert record is not None
    if not is_current(record):
        what = "failed" if record.status == "failed" else f"is of recipe {record.recipe_version}"
        raise StoreError(f"{store.record_location(record.id)}: this trial {what}: run its study again")
    return store, record


def _remedy(text: str) -> str:
    inside = Path(text).expanduser() / "model"  # as `scale-ray adapt` leaves one, or with several targets one for each
    if not is_url(text) and inside.is_dir():
        bundles = [folder for folder in (inside, *sorted(inside.iterdir())) if is_bundle(folder)]
        if bundles:
            return f": name {' or '.join(map(shown, bundles))}"
    return ": give a bundle's folder, STORE/ID or STORE/records/ID.json"


def _store_and_id(text: str) -> tuple[str, str]:
    """The location of a store, and the digits of an id; none where a store alone is named."""
    head, _, last = text.rpartition("/")
    if last.endswith(".json"):
        folder, _, records = head.rpartition("/")
        stem = last.removesuffix(".json").removesuffix(".failed")
        if (records or head) != "records" or not is_start(stem):
            raise StoreError(
                f"{shown(text)}: a record is read where its store has it: give STORE/records/ID.json or STORE/ID"
            )
        return folder or ".", stem
    if is_start(last) and not Files(text).location_exists():  # a store may have such a name
        return head or ".", last
    return text, ""


def bundle_of(store: Store, record: Record, weights: str | None = None) -> Bundle:
    """The bundle of a finished trial; its encoder comes from its weights where it was frozen.

    Raises:
        StoreError: the model is not stored, or is damaged.
        ConfigError: its method's students cannot be in a bundle.
        WeightsError: the weights are not there, or not those of the record.
    """
    assert record.result is not None
    state = bundle_state(_stored(store, record), record.config)
    if record.config.model.encoder == "frozen":
        encoder = _first_encoder(record, weights)
        state |= {f"encoder.{name}": value for name, value in encoder.items()}
    elif weights is not None:
        raise ConfigError(
            "--weights: this trial has trained its encoder, so no weights file belongs to it: leave it out"
        )
    return Bundle(record.id, record.config, dict(record.inputs), tuple(record.result.classes), state)


def _stored(store: Store, record: Record) -> State:
    content = store.read_model(record.id)
    if content is None:
        raise StoreError(
            f"{store.location}: the model of {record.id[:12]} ({describe(record.config)}) is not stored: run its "
            "command again with --keep-model, which trains it again"
        )
    try:
        state = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get("scale_ray", "{}"))  # older versions wrote none
    except (SafetensorError, ValueError) as error:
        raise StoreError(
            f"{store.model_location(record.id)}: not a readable model ({error}): delete it and run its command again "
            "with --keep-model"
        ) from error
    if about.get("record", record.id) != record.id:
        raise StoreError(
            f"{store.model_location(record.id)}: it is the model of {shown(about['record'])}: delete it and run its "
            "command again with --keep-model"
        )
    return state


def _first_encoder(record: Record, weights: str | None) -> State:
    """The state of the frozen encoder, from the file or the hub that the record names."""
    model, digest = record.config.model, record.inputs.get("weights")
    if digest is None:
        if weights is not None:
            raise WeightsError(f"--weights: the record names no file but {model.weights!r}: leave it out")
        path = model.weights
    else:
        path = weights or model.weights
        if not Path(path).is_file():
            raise WeightsError(
                f"{shown(path)}: the weights of the frozen encoder are not there: name the file with --weights FILE "
                f"(sha256 {digest})"
            )
        if weights_digest(path) != digest:
            raise WeightsError(
                f"{shown(path)}: not the weights that the trial was trained with (sha256 {digest}): name that file "
                "with --weights FILE"
            )
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(model.backbone, path, record.config.data.image_size)
    return dict(encoder.state_dict())
