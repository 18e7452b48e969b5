"""What the pages of a study are told: every change once, as JSON that all pages share, however many there are."""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from scale_ray.service.watch import CellState

_KEPT = 50  # changes; a page that has missed more is told everything


class Feed:
    """The changes of one study.

    Args:
        study: what there is to tell but for the cells; a change of it alone is one too.
        cells: the state of each cell, by id.
    """

    def __init__(self, study: Callable[[], dict[str, Any]], cells: Callable[[], dict[str, CellState]]):
        self._study, self._cells = study, cells
        self._told: tuple[dict[str, Any], dict[str, CellState]] = ({}, {})
        self._changes: deque[str] = deque(maxlen=_KEPT)
        self._whole = ""
        self._lock = threading.Lock()
        self.version = 0

    def refresh(self) -> None:
        """Look whether anything has changed."""
        with self._lock:
            study, cells = self._study(), self._cells()
            before = self._told
            changed = {cell: state for cell, state in cells.items() if before[1].get(cell) != state}
            if not changed and study == before[0]:
                return
            self._told = (study, cells)
            self._changes.append(_text(study, changed))
            self._whole = ""
            self.version += 1

    def since(self, version: int) -> tuple[int, list[str]]:
        """(the version now, the JSON of each change since that version); of a version long ago, everything in one."""
        with self._lock:
            missed = self.version - version
            if version == 0 or missed > len(self._changes):
                self._whole = self._whole or _text(*self._told)
                return self.version, [self._whole]
            return self.version, list(self._changes)[len(self._changes) - missed :]


def _text(study: dict[str, Any], cells: dict[str, CellState]) -> str:
    return json.dumps({**study, "cells": {cell: told(state) for cell, state in cells.items()}}, separators=(",", ":"))


def told(state: CellState) -> dict[str, Any]:
    """A state without what says nothing."""
    return {name: value for name, value in asdict(state).items() if value not in (None, "")}
