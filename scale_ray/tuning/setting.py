"""A setting: one choice of values in a tuning search, with what its trainings gave."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SettingState = Literal["done", "stopped", "pruned", "failed", "open", "incomplete"]


@dataclass(frozen=True)
class Setting:
    """Sampled values by dotted path, and the results of their trainings.

    Attributes:
        number: in the order in which settings were asked for. Duplicates are not trained and leave gaps.
        values: by dotted path.
        state: done: every repeat has a record. stopped: the first repeat was ended early. pruned: the repeats so far
            are so far below the best setting that the others were not trained. open: it has not ended. incomplete: it
            was done, and a repeat has no current record any more.
        reason: why it did not end as done, or where it was stopped.
        validators: name -> mean score over the repeats that have a record, higher is better; `oracle` is the target
            accuracy in percent. Validators that did not choose are there for comparison.
        repeats: number of repeats that have a record.
        steps: training steps of all repeats; a warm-up that settings share counts for the first of them.
        by_repeat: name -> repeat -> score, of the repeats that have a record.
        default: whether it is the default setting, which changes nothing of the base config.
    """

    number: int
    values: Mapping[str, Any]
    state: SettingState
    reason: str = ""
    validators: Mapping[str, float] = field(default_factory=dict)
    repeats: int = 0
    steps: int = 0
    by_repeat: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    default: bool = False


def describe_values(values: Mapping[str, Any]) -> str:
    """A setting in one line: `losses.threshold=0.8, losses.temperature=0.1`."""
    return ", ".join(
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in values.items()
    )
