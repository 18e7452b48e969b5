"""Values that a shell completes. A key press waits for them, so nothing here imports torch or ray."""

import ast
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from scale_ray.config import field_paths
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.records import ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES

Complete = Callable[[str], list[str]]


def _one_of(names: Callable[[], Iterable[str]], separators: str = "") -> Complete:
    """Complete the last name of those that the separators divide."""

    def complete(incomplete: str) -> list[str]:
        start = max(incomplete.rfind(separator) + 1 for separator in ("\0", *separators))
        return [incomplete[:start] + name for name in names()]

    return complete


def registered(module: str, registry: str) -> list[str]:
    """The names in a registry, read from its source, because its module imports torch."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == registry:
            (entries, *_) = (each for each in ast.walk(node) if isinstance(each, ast.Dict))
            return [str(key.value) for key in entries.keys if isinstance(key, ast.Constant)]
    raise LookupError(f"{module} has no {registry}")


def _backbones() -> list[str]:
    return registered("scale_ray.models.backbones", "BACKBONES") + registered("scale_ray.models.clip", "CLIP_BACKBONES")


def _methods() -> list[str]:
    return registered("scale_ray.methods", "METHODS")


def of(*names: str) -> Complete:
    """Complete one of these."""
    return _one_of(lambda: names)


backbone = _one_of(_backbones)
backbones = _one_of(_backbones, ",")
benchmark = _one_of(lambda: BENCHMARKS)
chooser = of(*VALIDATOR_NAMES, *SET_VALIDATOR_NAMES, ORACLE)
device = of("auto", "cpu", "cuda")
field = _one_of(lambda: [f"{path}=" for path in field_paths()])
losses = _one_of(lambda: registered("scale_ray.losses", "LOSSES"), "+,")
method = _one_of(_methods)
methods = _one_of(_methods, ",")
tracker = _one_of(lambda: [f"{name}=" for name in registered("scale_ray.track.trackers", "TRACKERS")])
validator = of(*VALIDATOR_NAMES, ORACLE)
