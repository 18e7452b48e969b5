"""The service's own settings: where it listens, and the places that a submission may name."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, get_args

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scale_ray.config import ConfigError, describe_problems
from scale_ray.urls import is_url

LOOPBACK = ("127.0.0.1", "::1", "localhost")

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)  # each may do what those before it may


class Quota(BaseModel):
    """What an owner's studies may use together. None: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    places: int | None = Field(None, ge=0, description="trainings at a time")
    gpus: float | None = Field(None, ge=0, description="GPUs at a time")
    gpu_hours_a_week: float | None = Field(None, ge=0, description="hours of GPUs within the last seven days")


class Proxy(BaseModel):
    """An authenticating proxy (OpenID Connect) that says in a header who a request comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(description="IP address of the proxy: the header of no other address counts")
    header: str = Field("X-Forwarded-User", description="the header with the user's name")
    scope: Scope = Field("submit", description="what its users may do")
    admins: tuple[str, ...] = Field((), description="users who may do everything")


class Limits(BaseModel):
    """What one client may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(2**20, ge=1)
    requests_a_minute: int = Field(600, ge=1)
    events: int = Field(200, ge=1, description="pages that may listen to events at a time, of all clients together")
    cells: int = Field(100_000, ge=1, description="of one study")


class ServiceSettings(BaseModel):
    """The settings of `scale-ray serve`, as its TOML file has them.

    Attributes:
        stores, roots, weights: name -> place. A submission names these, and no place itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(8700, ge=1, le=65535)
    tokens: bool = Field(
        True, description="whether a request needs a token; without one, whoever reaches it may do all"
    )
    database: str = Field(
        default_factory=lambda: f"sqlite:///{platformdirs.user_data_path('scale-ray')}/service.db",
        description="SQLAlchemy's URL: sqlite:///FILE or postgresql+psycopg://…",
    )
    ray: str = Field("http://127.0.0.1:8265", description="the dashboard of the cluster's head, which takes jobs")
    python: str = Field("python", pattern=r"^[\w./-]+$", description="the interpreter of jobs on the head")
    stores: dict[str, str] = {}
    roots: dict[str, str] = {}
    weights: dict[str, str] = {}
    places: int | None = Field(
        None, ge=1, description="trainings at a time; None: as many as the nodes hold that are there now"
    )
    attempts: int = Field(5, ge=1, description="jobs in a row that may end without a new record")
    quota: Quota = Field(Quota(), description="of every owner without one of their own")
    quotas: dict[str, Quota] = Field({}, description="owner -> quota")
    proxy: Proxy | None = None
    limits: Limits = Limits()

    @field_validator("stores", "roots", "weights")
    @classmethod
    def _absolute(cls, places: dict[str, str]) -> dict[str, str]:
        return {
            name: place if is_url(place) else str(Path(place).expanduser().absolute()) for name, place in places.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.stores:
            raise ValueError('stores: the service needs one at least: add default = "FOLDER or URL" under [stores]')
        if self.host not in LOOPBACK and not self.tokens:
            raise ValueError(
                f"host={self.host!r} is reached from other machines, so every request needs a token: leave out "
                "tokens=false, or listen on 127.0.0.1"
            )
        return self

    def quota_of(self, owner: str) -> Quota:
        return self.quotas.get(owner, self.quota)


def read_values(path: Path) -> dict[str, Any]:
    """The values in a TOML file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error}): see docs/service.md for an example") from None


def settings_of(values: dict[str, Any], origin: str) -> ServiceSettings:
    """The settings with these values.

    Raises:
        ConfigError: one line for each that cannot be used.
    """
    try:
        return ServiceSettings.model_validate(values)
    except ValidationError as error:
        lines = describe_problems(error, ServiceSettings).splitlines()
        raise ConfigError("\n".join(f"{origin}: {line}" for line in lines)) from None
