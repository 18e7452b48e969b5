"""A cell: one combination of a study's axes, resolved."""

from pydantic import BaseModel, ConfigDict

from scale_ray.config import TrialConfig


class Cell(BaseModel):
    """One trial that a study wants a record of. `training.resolve` makes it once; it travels down as it is.

    Attributes:
        id: the identity of (config, inputs, recipe).
        config: what is trained, with domains in their canonical spelling.
        inputs: digest of everything that the trial reads, by role; empty in plans of older versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    config: TrialConfig
    inputs: dict[str, str] = {}
