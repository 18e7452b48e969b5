"""A catalogue: where the images of each domain lie, for images that are not in one folder `root/domain/class/image`.

It is a TOML file, or it is made of options such as --target-images:

    [domains.studio]
    images = "studio"               # class folders, relative to this file

    [domains.phone]
    images = ["phone", "old_phone"] # folders of images at any depth
    labelled = false

    [domains.web]
    images = "web.csv"              # columns path, label and, where a list has several domains, domain

    [domains.hub]
    images = "hf:NAME"              # of Hugging Face

    [label_map]                     # class names that differ
    bike = "bicycle"
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scale_ray.config.problems import ConfigError, parsed
from scale_ray.errors import shown
from scale_ray.urls import is_url

LIST_SUFFIXES = (".csv", ".parquet", ".txt")
HUB = "hf:"


class Place(BaseModel):
    """Where the images of one domain are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(
        min_length=1,
        description="folders, or one list file (.csv, .parquet, .txt), or one data set of Hugging Face (hf:NAME, "
        "hf:NAME:SPLIT, hf:FOLDER); absolute once a catalogue is read",
    )
    labelled: bool = Field(True, description="whether the images have labels: those of a folder are its class folders")
    domain: str | None = Field(None, description="of a list file, the rows of this domain; None: all")
    split: str | None = Field(None, description="of a list file, the rows of this split; None: all")

    @field_validator("images", mode="before")
    @classmethod
    def _one_is_several(cls, images: Any) -> Any:
        return (images,) if isinstance(images, str) else images

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.images) > 1 and (self.labelled or any(is_list(place) or is_hub(place) for place in self.images)):
            raise ValueError(
                f"images: {', '.join(self.images)}: only folders of images without labels may be several "
                "(labelled = false): give one"
            )
        for name in ("domain", "split"):
            if getattr(self, name) is not None and not is_list(self.images[0]):
                raise ValueError(f"{name}: only a list file has one, and {self.images[0]} is none: leave it out")
        return self


class Catalogue(BaseModel):
    """Domains by name, and class names that are replaced. It can be a key of a dict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domains: tuple[tuple[str, Place], ...]
    label_map: tuple[tuple[str, str], ...] = ()

    @field_validator("domains", "label_map", mode="before")
    @classmethod
    def _pairs(cls, given: Any) -> Any:
        return tuple(given.items()) if isinstance(given, Mapping) else given

    def place(self, name: str) -> Place | None:
        return dict(self.domains).get(name)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.domains]

    def class_name(self, written: str) -> str:
        return dict(self.label_map).get(written, written)


# Where images are: root/domain/class/image, or a catalogue.
Root = Path | Catalogue


def is_list(place: str) -> bool:
    return place.lower().endswith(LIST_SUFFIXES) and not is_hub(place)


def is_hub(place: str) -> bool:
    return place.startswith(HUB)


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in a TOML file, its paths made absolute.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        values = tomllib.loads(path.read_text())
        if "domains" not in values:
            raise ConfigError("no table [domains.NAME] in it: docs/adapt.md has an example")
        found = parsed(Catalogue, values)
    except OSError as error:
        raise ConfigError(f"--root {shown(path)}: cannot be read ({error.strerror}): check the file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--root {shown(path)}: not a TOML file ({error}): mend that line") from None
    except ConfigError as error:
        raise ConfigError(f"--root {shown(path)}: {'; '.join(str(error).splitlines())}") from None
    folder = path.absolute().parent
    return Catalogue(
        domains=tuple(
            (name, place.model_copy(update={"images": tuple(absolute(each, folder) for each in place.images)}))
            for name, place in found.domains
        ),
        label_map=found.label_map,
    )


def absolute(place: str, folder: Path) -> str:
    """A place as its catalogue means it: relative paths start at the catalogue's folder, URLs stay."""
    if is_url(place):
        return place
    if not is_hub(place):
        return str(folder / Path(place).expanduser())
    name, colon, split = place.removeprefix(HUB).partition(":")
    local = folder / Path(name).expanduser()
    return f"{HUB}{local if local.is_dir() else name}{colon}{split}"
