"""Where and how a trial runs, and what it asks Ray for: no part of a cell's identity."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scale_ray.config.catalogue import Root
from scale_ray.config.parts import MOST, MOST_OF_A_TRIAL
from scale_ray.config.problems import parsed
from scale_ray.urls import is_url, redacted

# The smallest part of a GPU that Ray counts.
_LEAST_GPU = 0.0001


# What may lie in a store beside a record.
Beside = Literal["model", "predictions"]


class _Settings(BaseModel):
    """What a trial needs beside its config."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build it from values.

        Raises:
            ConfigError: one line per problem.
        """
        return parsed(cls, values)


class Execution(_Settings):
    """Where and how a trial runs. Nothing here may change more than the last bits of a result, so no id contains it."""

    root: Root | None = Field(
        None, description="folder of an image benchmark: root/domain/class/image; or where each domain is"
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1'")
    threads: int = Field(
        1, ge=1, le=MOST_OF_A_TRIAL, description="torch threads; a study sets the number of CPUs of a trial"
    )
    checkpoint_every: int = Field(500, ge=1, le=MOST, description="steps between checkpoints")
    keep_model: bool | None = Field(
        None,
        description="store the trained model (without its projection head) beside the record; None: where the encoder "
        "is frozen, as its heads take some MB, and no cell is trained again for a model that it lacks",
    )
    keep_predictions: bool = Field(
        False,
        description="store the student's class probabilities of every target image beside the record, in float16: at "
        "most 2 bytes x images x classes",
    )
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    hang_after: float = Field(
        1800,
        ge=0,
        le=MOST,
        description="seconds without a step, or without an image opened before the first one, after which a trial on "
        "Ray is ended and tried again; 0: never",
    )
    compile: bool = Field(False, description="torch.compile the encoders: minutes of warm-up, then faster steps")

    @property
    def beside(self) -> tuple[Beside, ...]:
        """What a trial was asked to leave beside its record; one that lacks any of it is not done."""
        wanted: dict[Beside, bool] = {"model": bool(self.keep_model), "predictions": self.keep_predictions}
        return tuple(kind for kind, keep in wanted.items() if keep)


class Resources(_Settings):
    """What one trial of a study asks Ray for, and where Ray is."""

    cpus: int = Field(1, ge=1, le=MOST_OF_A_TRIAL, description="CPUs of one worker, and so its torch threads")
    gpus: float | None = Field(
        None,
        ge=0,
        le=MOST_OF_A_TRIAL,
        description="GPUs of one worker, below 1 fractions too; None: one where there are any, unless on the CPU",
    )
    workers: int = Field(1, ge=1, le=MOST_OF_A_TRIAL, description="processes that train together, under Ray Train")
    ray_train: Literal["auto", "always", "never"] = Field(
        "auto", description="whether trials run under Ray Train; auto: where several workers train together"
    )
    address: str | None = Field(
        None,
        description="'local' starts Ray on this machine, 'auto' joins the cluster that this machine belongs to; None "
        "joins a cluster where there is one and starts Ray where there is none",
    )

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float | None) -> float | None:
        if gpus is not None and (gpus % 1 if gpus > 1 else 0 < gpus < _LEAST_GPU):
            raise ValueError(
                f"{gpus:g} is no number of GPUs that Ray can give: write a whole number, or a fraction below 1 of "
                f"{_LEAST_GPU} at least"
            )
        return gpus

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and is_url(address):
            raise ValueError(
                f"{redacted(address)}: a study runs on a machine of the cluster, not through a client: send it there "
                "with `ray job submit` or `ray submit`, or write --local"
            )
        return address

    @property
    def through_train(self) -> bool:
        """Whether trials run under Ray Train, and not inside a Ray Tune trial."""
        return self.workers > 1 or self.ray_train == "always"

    @model_validator(mode="after")
    def _workers_need_ray_train(self) -> "Resources":
        if self.workers > 1 and self.ray_train == "never":
            raise ValueError("several workers train together under Ray Train: ray_train cannot be 'never'")
        return self
