"""A registry: a dict of named entries that knows which of them the package made."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class Registry(dict[str, T]):
    """Name -> entry. Users add entries as to any dict; `own` tells theirs from the package's."""

    def __init__(self, entries: Mapping[str, T]):
        super().__init__(entries)
        self._of_package = dict(entries)

    def own(self) -> dict[str, T]:
        """The entries that were added or replaced since the registry was made."""
        return {name: entry for name, entry in self.items() if self._of_package.get(name) is not entry}
