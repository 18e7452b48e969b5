"""Which trackers there are, and how a person names one: `mlflow=http://host:5000`."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from scale_ray.config import check_name
from scale_ray.extras import how_to_install
from scale_ray.registry import Registry
from scale_ray.track.mlflow import Mlflow
from scale_ray.track.tensorboard import TensorBoard
from scale_ray.track.tracker import Tracker, TrackError
from scale_ray.track.trackio import Trackio
from scale_ray.track.wandb import WandB
from scale_ray.urls import redacted

_LONGEST_REASON = 300


class Kind(NamedTuple):
    """A kind of tracker. The package that it needs and the extra that brings it have the kind's name."""

    open: Callable[[str], Tracker]  # by what stands behind the =
    written: str
    remedy: str  # where it cannot be opened
    usual: bool = False  # whether it knows a target of its own, where none is written


TRACKERS: Registry[Kind] = Registry(
    {
        "tensorboard": Kind(TensorBoard, "tensorboard=FOLDER", "name another folder"),
        "mlflow": Kind(Mlflow, "mlflow=URI", "start the server, or mend the URI or MLFLOW_TRACKING_*", usual=True),
        "wandb": Kind(WandB, "wandb=[ENTITY/]PROJECT", "`wandb login`, or set WANDB_MODE=offline"),
        "trackio": Kind(Trackio, "trackio=PROJECT", "mend TRACKIO_DIR, or name another project"),
    }
)


def check_targets(targets: Iterable[str]) -> list[str]:
    """The targets, each once.

    Raises:
        ConfigError: there is no such tracker.
        TrackError: a target is not written as its tracker's are.
    """
    for target in (checked := list(dict.fromkeys(targets))):
        name, sign, place = target.partition("=")
        check_name("tracker", name, TRACKERS)
        if not place and (sign or not TRACKERS[name].usual):
            raise TrackError(f"{redacted(target)}: names no place: write {TRACKERS[name].written}")
    return checked


def open_trackers(targets: Iterable[str]) -> dict[str, Tracker]:
    """The trackers of these targets, by what may be shown of each target.

    Raises:
        UserError: a tracker cannot be used; the message names it and the remedy.
    """
    return {redacted(target): _open(target) for target in check_targets(targets)}


def _open(target: str) -> Tracker:
    name, _, place = target.partition("=")
    kind = TRACKERS[name]
    try:
        return kind.open(place)
    except TrackError:
        raise
    except Exception as error:  # noqa: BLE001 - of the tracker's own package, which has errors of every kind
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise TrackError(f"{redacted(target)} needs the package {name}: {how_to_install(name)}") from None
        raise TrackError(f"{redacted(target)}: cannot be used ({reason(error)}): {kind.remedy}") from None


def reason(error: Exception) -> str:
    """An error of a tracker's package in one line, without passwords."""
    text = redacted(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"
