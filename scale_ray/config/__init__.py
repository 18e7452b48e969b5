"""The config of one trial: frozen and validated.

A `TrialConfig` holds only what can change a number; its hash is part of the trial's id (see `identity`). Where the data
lies, how many threads work and what Ray is asked for belong to `Execution` and `Resources`, which change no number.
"""

from scale_ray.config.catalogue import Catalogue, Place, Root, is_hub, is_list, read_catalogue
from scale_ray.config.losses import BaselineConfig, LossesConfig
from scale_ray.config.parts import (
    DataConfig,
    Introduced,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    Precision,
    ViewsConfig,
)
from scale_ray.config.problems import ConfigError, check_name, describe_problem, describe_problems, suggest
from scale_ray.config.running import Beside, Execution, Resources
from scale_ray.config.trial import (
    DEFAULTS,
    NAMED_WEIGHTS,
    RECIPE_VERSION,
    VARIANTS,
    TrialConfig,
    TuningBudget,
    absolute_weights,
    field_info,
    field_paths,
    flat_fields,
)

__all__ = [
    "DEFAULTS", "NAMED_WEIGHTS", "RECIPE_VERSION", "VARIANTS", "BaselineConfig", "Beside", "Catalogue", "ConfigError",
    "DataConfig", "Execution", "Introduced", "LossesConfig", "ModelConfig", "OptimConfig", "ParallelConfig", "Place",
    "Precision", "Resources", "Root", "TrialConfig", "TuningBudget", "ViewsConfig", "absolute_weights", "check_name",
    "describe_problem", "describe_problems", "field_info", "field_paths", "flat_fields", "is_hub", "is_list",
    "read_catalogue", "suggest",
]  # fmt: skip
