"""What runs are called: words that people read, and a digest where words could mean several things."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig, field_paths
from scale_ray.identity import identity
from scale_ray.study import differing_fields

_MOST = 100  # characters: Weights & Biases takes 128, with seed or digest


class Names:
    """The names of a study's cells: `mnist>mnistm ce+ssl lenet`, with the fields in which such cells differ.

    Args:
        cells: those that are known.
        fields: named in any case, by dotted path; of a search those that it tunes.
    """

    def __init__(self, cells: Sequence[Cell], fields: Sequence[str] = ()):
        self._cells, self._always = cells, [path for path in field_paths() if path in fields]

    def of(self, cell: Cell) -> tuple[str, str]:
        """The words for all cells that differ from this one in the seed alone, and their digest: 8 hex digits.

        The digest is of the config and of the data, so that equal words of another study are no mistake.
        """
        config = cell.config
        words = _words(config)
        fields = dict.fromkeys([*self._always, *self._differing.get(words, ())])
        words += "".join(f" {path}={config.value(path)}" for path in fields)
        return _short(words), identity(config.replace({"seed": 0}), cell.inputs)[:8]

    @cached_property
    def _differing(self) -> dict[str, list[str]]:
        """Words that several configs have -> the fields in which these differ."""
        alike = defaultdict[str, list[TrialConfig]](list)
        for cell in self._cells:
            alike[_words(cell.config)].append(cell.config)
        return {words: differing_fields(configs) for words, configs in alike.items()}


def _words(config: TrialConfig) -> str:
    return f"{config.pair} {config.approach} {config.model.label}"


def _short(words: str) -> str:
    return words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"
