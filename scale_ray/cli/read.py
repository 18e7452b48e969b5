"""The texts that options take, read into values."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale_ray.config import ConfigError, field_paths, flat_fields, suggest
from scale_ray.study import MOST_CELLS
from scale_ray.urls import redacted


def read_settings(texts: Sequence[str] | None, option: str = "--set") -> dict[str, Any]:
    """`PATH=VALUE` texts as path -> value. A value that is no JSON is a string."""
    settings = {}
    for text in texts or ():
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} {text!r}: write PATH=VALUE, as in losses.threshold=0.9")
        settings[path.strip()] = read_value(value)
    return settings


# Axes that move several fields together, and the options that set their values.
_OF_SEVERAL_FIELDS = {"pair": "--pairs", "losses": "--losses"}


def read_axes(texts: Sequence[str] | None) -> dict[str, list[Any]]:
    """`PATH=V,V,…` texts as path -> values. Values may also be written as a JSON list: `views.crop_scale=[[0.5,1]]`."""
    axes: dict[str, list[Any]] = {}
    for text in texts or ():
        path, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values:
            raise ConfigError(f"--axis {text!r}: write PATH=VALUE,VALUE, as in losses.threshold=0.7,0.8")
        if path in _OF_SEVERAL_FIELDS:
            raise ConfigError(f"--axis {path}: it sets several fields: use {_OF_SEVERAL_FIELDS[path]}")
        if path not in field_paths():
            raise ConfigError(f"--axis {path}: no such field: {suggest(path, field_paths())}give its dotted path")
        if path in axes:
            raise ConfigError(f"--axis {path}: given twice: write all values in one")
        whole = read_value(values)
        axes[path] = whole if isinstance(whole, list) else [read_value(part) for part in split_list(values)]
    return axes


def read_value(text: str) -> Any:
    """The value of a JSON text; any other text is a string."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def split_list(text: str) -> list[str]:
    """The parts between commas, without spaces around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_seeds(text: str) -> list[int]:
    """`3` as 0, 1, 2; `7,8` as it is."""
    try:
        numbers = [int(part) for part in split_list(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise ConfigError(f"--seeds {text!r}: write how many (3), or the seeds themselves (7,8)")
    if "," in text:
        return numbers
    if numbers[0] < 1:
        raise ConfigError(f"--seeds {text}: write 1 or more")
    if numbers[0] > MOST_CELLS:
        raise ConfigError(f"--seeds {text}: a study has at most {MOST_CELLS:,} cells: write fewer")
    return list(range(numbers[0]))


def read_config(path: Path | None, *, alone: bool = False) -> dict[str, Any]:
    """The fields of a JSON file by dotted path, or those of a record's config; none without a file.

    Args:
        path: of the file. Its key `root` is no field (see `root_in_config`).
        alone: also read the object under the key `train`: what a single training needs and the axes of a study decide.
    """
    values = _read_object(path)
    if path is not None and values.keys() >= _RECORD_KEYS:
        return flat_fields(_config_of_record(path, values))
    values.pop("root", None)
    of_training = values.pop("train", {})
    return flat_fields({**values, **of_training} if alone else values)


def root_in_config(path: Path | None) -> Path | None:
    """Where the images are by a config file, which --root overrides."""
    root = _read_object(path).get("root")
    return None if root is None else Path(str(root)).expanduser()


def _read_object(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or not isinstance(values.get("train", {}), dict):
            raise ConfigError(f"--config {path}: holds a {type(values).__name__}: write an object of fields")
        return values
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"--config {path}: cannot be read as JSON ({error}): give a JSON file of fields") from None


# By these keys a record is told from a file of fields, which can have none of them.
_RECORD_KEYS = {"schema_version", "id", "config", "inputs"}


def _config_of_record(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    config = values["config"]
    if not isinstance(config, dict):
        raise ConfigError(
            f"--config {path}: a record without a config: give one as a store has it, or a file of fields"
        )
    return config


def command_line() -> str:
    """The command line of this process, as one can type it again, without passwords."""
    program, *arguments = sys.argv
    script = Path(program)
    start = ["python", program] if script.suffix == ".py" and script.name != "__main__.py" else ["scale-ray"]
    return shlex.join([*start, *map(redacted, arguments)])


def refuse_passwords() -> None:
    """Refuse a command line with a password: other users see it, and so does everyone who sees Ray's dashboard.

    Raises:
        ConfigError: an argument holds a URL with a password.
    """
    for argument in sys.argv[1:]:
        if (shown := redacted(argument)) != argument:
            raise ConfigError(
                f"{shown}: the process table and Ray's dashboard show a password on the command line: for --study-url, "
                "put the URL into SCALE_RAY_STUDY_URL or into a file (--study-url @FILE); for a store, the credentials "
                "into the environment"
            )


def read_study_url(text: str | None) -> str | None:
    """The URL itself, or what the file holds that `@FILE` names.

    Raises:
        ConfigError: the file cannot be read, or does not hold one line.
    """
    if text is None or not text.startswith("@"):
        return text
    path = Path(text[1:]).expanduser()
    try:
        lines = path.read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--study-url {text}: cannot be read ({error}): give a file that holds the URL") from None
    if len(lines) != 1:
        raise ConfigError(f"--study-url {text}: holds {len(lines)} words: write the URL into it and nothing else")
    return lines[0]
