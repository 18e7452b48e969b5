"""Ways in which a file of a store may be spoilt: by a killed writer, a disk, a sync tool, a person, an attacker."""

import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

_DEEP = 10_000
STRANGER = "notes"


class Poison:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, marker: Path):
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._marker,)


class Scene(NamedTuple):
    """What a damage is done to."""

    path: Path  # of the file
    other: Path  # another file of that kind, which may be there
    marker: Path  # what a poisoned file would create


def _cut(scene: Scene) -> None:
    scene.path.write_bytes(scene.path.read_bytes()[: scene.path.stat().st_size // 2])


def _empty(scene: Scene) -> None:
    scene.path.write_bytes(b"")


def _flip(share: float) -> Callable[[Scene], None]:
    """Flip the lowest bit of the byte that far into the file."""

    def flip(scene: Scene) -> None:
        content = bytearray(scene.path.read_bytes())
        content[int(share * (len(content) - 1))] ^= 1
        scene.path.write_bytes(content)

    return flip


def _flip_number(scene: Scene) -> None:
    """Flip a bit of the first digit of an accuracy, or else of the last digit in the file."""
    content = bytearray(scene.path.read_bytes())
    accuracies = [match.end() for match in re.finditer(rb'"target_accuracy": ?', content)]
    digits = [match.start() for match in re.finditer(rb"\d", content)]
    content[accuracies[0] if accuracies else digits[-1]] ^= 1
    scene.path.write_bytes(content)


def _duplicate(mark: str) -> Callable[[Scene], None]:
    def duplicate(scene: Scene) -> None:
        copy = scene.path.with_name(f"{scene.path.stem}{mark}{scene.path.suffix}")
        copy.write_bytes(scene.path.read_bytes())

    return duplicate


def _stranger(*, suffix: bool) -> Callable[[Scene], None]:
    """Somebody keeps a file of theirs in the folder."""
    return lambda scene: _write_text(scene.path.with_name(STRANGER + scene.path.suffix * suffix), "milk, bread\n")


def _rename(scene: Scene) -> None:
    scene.path.replace(scene.other)


def _copy_over(scene: Scene) -> None:
    """The file answers for another one too."""
    scene.other.write_bytes(scene.path.read_bytes())


def _folder(scene: Scene) -> None:
    scene.path.unlink()
    scene.path.mkdir()
    (scene.path / scene.path.name).write_bytes(b"")


def _nest(text: str, end: str) -> Callable[[Scene], None]:
    return lambda scene: _write_text(scene.path, text * _DEEP + end * _DEEP)


def _nest_inside(scene: Scene) -> None:
    """The JSON as it was, with one more key of deep nesting."""
    content = scene.path.read_text().rstrip()
    _write_text(scene.path, content[:-1] + ', "more": ' + "[" * _DEEP + "]" * _DEEP + content[-1])


def _other_type(scene: Scene) -> None:
    _write_text(scene.path, json.dumps([1, "two", None]))


def _not_utf8(scene: Scene) -> None:
    scene.path.write_bytes(b"\xff\xfe\x00caf\xe9\n")


def _pickle(scene: Scene) -> None:
    scene.path.write_bytes(pickle.dumps(Poison(scene.marker)))


def _torch_pickle(scene: Scene) -> None:
    file = io.BytesIO()
    torch.save({"step": 8, "method": Poison(scene.marker)}, file)
    scene.path.write_bytes(file.getvalue())


def _array_pickle(scene: Scene) -> None:
    with scene.path.open("wb") as file:
        np.save(file, np.array([Poison(scene.marker)], dtype=object), allow_pickle=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


# Operations in Optuna's journal: optuna.storages.journal._storage.JournalOperation.
_SET_SPEC, CREATE_TRIAL, _SET_USER_ATTR, SET_SYSTEM_ATTR = 2, 4, 8, 9


def _attribute(name: str, value: object, operation: int = _SET_USER_ATTR) -> Callable[[Scene], None]:
    """Somebody has set an attribute of the first setting, or (`_SET_SPEC`) of the search, to another value."""

    def spoil(scene: Scene) -> None:
        kind = "system_attr" if operation == SET_SYSTEM_ATTR else "user_attr"
        owner = {"study_id": 0} if operation == _SET_SPEC else {"trial_id": 0}
        entry = {"op_code": operation, "worker_id": "somebody", kind: {name: value}} | owner
        logs = [json.loads(line) for line in scene.path.read_text().splitlines()]
        kept = [log for log in logs if name not in log.get(kind, {})]
        created = next(index for index, log in enumerate(kept) if log["op_code"] == CREATE_TRIAL)
        kept.insert(created + 1, entry)
        _write_text(scene.path, "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in kept))

    return spoil


_COPY, _CONFLICT = " (copy)", ".sync-conflict-20260301-120000-ABCDEFG"

EVERY = {
    "cut": _cut,
    "emptied": _empty,
    "bit at 10 %": _flip(0.1),
    "bit at 40 %": _flip(0.4),
    "bit at 55 %": _flip(0.55),
    "bit at 90 %": _flip(0.9),
    "duplicated": _duplicate(_COPY),
    "sync conflict": _duplicate(_CONFLICT),
    "a stranger beside it": _stranger(suffix=False),
    "a stranger of the same ending": _stranger(suffix=True),
    "renamed": _rename,
    "copied over another": _copy_over,
    "a folder": _folder,
    "a pickle": _pickle,
    "not UTF-8": _not_utf8,
}
_JSON = {
    "bit of a number": _flip_number,
    "nested lists": _nest("[", "]"),
    "nested objects": _nest('{"id":', "}"),
    "nested inside": _nest_inside,
    "another type": _other_type,
}

# What else is done to a kind of file.
OF_KIND: dict[str, dict[str, Callable[[Scene], None]]] = {
    "done record": _JSON,
    "record of a search": _JSON,
    "failed record": _JSON,
    "plan": _JSON,
    "driver": _JSON,
    "checkpoint": {"a pickle in a zip": _torch_pickle},
    "stage": {"a pickle in a zip": _torch_pickle},
    "features": {"an array of pickles": _array_pickle},
    "journal": {
        "bit of a number": _flip_number,
        "nested lists": _nest("[", "]"),
        "another type": _other_type,
        "a spec that is text": _attribute("spec", "x", _SET_SPEC),
        "a spec that is a list": _attribute("spec", ["x"], _SET_SPEC),
        "cells that are text": _attribute("cells", "x"),
        "cells that are a list": _attribute("cells", ["x"]),
        "a curve that is a number": _attribute("curve", 1),
        "a curve of words": _attribute("curve", [["a", "b"]]),
        "stopped at no step": _attribute("stopped", {"repeat": 0}),
        "stopped at another repeat": _attribute("stopped", {"repeat": 9, "step": 4}),
        "a reason that is a list": _attribute("reason", [1]),
        "a duplicate of a word": _attribute("duplicate_of", "x"),
        "a generation that is a list": _attribute("cma:generation", [0], SET_SYSTEM_ATTR),
        "enqueued values that are a list": _attribute("fixed_params", [1], SET_SYSTEM_ATTR),
    },
}


def damages(kind: str) -> dict[str, Callable[[Scene], None]]:
    """By name, what is done to a file of that kind."""
    found = EVERY | OF_KIND.get(kind, {})
    if kind == "lease":  # an empty file has no bits
        return {name: damage for name, damage in found.items() if not name.startswith("bit ")}
    return found


def is_extra(path: Path) -> bool:
    """Whether a damage put this file beside another."""
    return any(mark in path.name for mark in (_COPY, _CONFLICT, STRANGER))
