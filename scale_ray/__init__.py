"""Unsupervised domain adaptation studies on Ray.

The names below are imported when they are first used, so that `import scale_ray` is fast and `load` needs neither torch
nor ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scale_ray.api import adapt, load, load_model, main, plan, results, run, train, tune
    from scale_ray.config import Execution, Resources, TrialConfig
    from scale_ray.data.benchmarks import BENCHMARKS
    from scale_ray.data.defaults import base_config, usual_settings
    from scale_ray.data.views import STRONG_VIEWS
    from scale_ray.errors import UserError
    from scale_ray.losses import LOSSES
    from scale_ray.losses.term import LossTerm
    from scale_ray.methods import METHODS, Method, training_function
    from scale_ray.models import BACKBONES
    from scale_ray.study import Study, Until, approaches, combinations, pairs

_HOMES = {
    "BACKBONES": "scale_ray.models",
    "BENCHMARKS": "scale_ray.data.benchmarks",
    "Execution": "scale_ray.config",
    "LOSSES": "scale_ray.losses",
    "LossTerm": "scale_ray.losses",
    "METHODS": "scale_ray.methods",
    "Method": "scale_ray.methods",
    "Resources": "scale_ray.config",
    "STRONG_VIEWS": "scale_ray.data.views",
    "Study": "scale_ray.study",
    "TrialConfig": "scale_ray.config",
    "Until": "scale_ray.study",
    "UserError": "scale_ray.errors",
    "adapt": "scale_ray.api",
    "approaches": "scale_ray.study",
    "base_config": "scale_ray.data.defaults",
    "combinations": "scale_ray.study",
    "load": "scale_ray.api",
    "load_model": "scale_ray.api",
    "main": "scale_ray.api",
    "pairs": "scale_ray.study",
    "plan": "scale_ray.api",
    "results": "scale_ray.api",
    "run": "scale_ray.api",
    "train": "scale_ray.api",
    "training_function": "scale_ray.methods",
    "tune": "scale_ray.api",
    "usual_settings": "scale_ray.data.defaults",
}

__all__ = [
    "BACKBONES", "BENCHMARKS", "LOSSES", "METHODS", "STRONG_VIEWS", "Execution", "LossTerm", "Method", "Resources",
    "Study", "TrialConfig", "Until", "UserError", "adapt", "approaches", "base_config", "combinations", "load",
    "load_model", "main", "pairs", "plan", "results", "run", "train", "training_function", "tune", "usual_settings",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scale_ray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
