"""Plans of studies, and their files.

    STORE/studies/<name>.json    {"name": …, "configs": […], "inputs": […], "cells": [[id, config, seed, inputs], …]}

A file has each config once, without its seed, and each set of inputs once; a cell names the two by their numbers. An
earlier form, which has every cell with its whole config, is read as well.
"""

import re
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import from_json, to_json

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.store.sealed import PLAN, seal, unseal
from scale_ray.study import Until

_LIST = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")  # of numbers and texts alone; no text in JSON has a line break
_BREAK = re.compile(r",\n\s+")


class StudyPlan(BaseModel):
    """The cells that a study needs. The report measures completeness against them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    created: str
    cells: list[Cell]
    until: Until | None = None  # what its seeds are to decide
    command: str | None = None  # the command line to run again, joined by shlex; None if the plan has none


class PlannedCell(NamedTuple):
    """A cell as a plan's file has it."""

    id: str
    config: Annotated[int, Field(ge=0)]  # its place in the file's configs
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    inputs: Annotated[int, Field(ge=0)]


class PlanFile(BaseModel):
    """A plan's file, whose configs are not validated yet.

    Attributes:
        name, created, until, command: as in `StudyPlan`.
        configs: as in JSON, without seeds.
        inputs: input -> digest.
        cells: in the study's order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    created: str
    until: Until | None = None
    command: str | None = None
    configs: list[dict[str, Any]]
    inputs: list[dict[str, str]]
    cells: list[PlannedCell]

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        for cell in self.cells:
            if cell.config >= len(self.configs) or cell.inputs >= len(self.inputs):
                raise ValueError(f"cell {cell.id} has a config or inputs that are not there")
        return self

    @classmethod
    def of(cls, plan: StudyPlan) -> Self:
        """The file of a plan."""
        configs, inputs = _Distinct(), _Distinct()
        cells = []
        for cell in plan.cells:
            config = cell.config.model_dump_json(exclude={"seed"}).encode()
            place = configs.place(config), inputs.place(to_json(cell.inputs))
            cells.append(PlannedCell(cell.id, place[0], cell.config.seed, place[1]))
        named = {name: getattr(plan, name) for name in ("name", "created", "until", "command")}
        return cls(**named, configs=configs.values, inputs=inputs.values, cells=cells)

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read a file's bytes.

        Raises:
            ValueError, RecursionError: they are no plan, or not those that were written.
        """
        # Not model_validate_json: it needs three times the memory.
        values = from_json(unseal(content, PLAN)[0])
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        values.pop("sha256", None)  # of a plan that a tool wrote again
        if "cells" in values and "configs" not in values:
            values = _of_first_version(values)
        return cls.model_validate(values)

    def content(self) -> bytes:
        """The file's bytes."""
        text = _LIST.sub(_on_one_line, self.model_dump_json(indent=1))
        return seal(text + "\n", PLAN)

    def plan(self) -> StudyPlan:
        """The plan.

        Raises:
            ValueError: a config is none of this version.
        """
        configs = [TrialConfig.model_validate(values) for values in self.configs]
        cells = []
        for cell in self.cells:
            config = configs[cell.config].model_copy(update={"seed": cell.seed})
            cells.append(Cell(id=cell.id, config=config, inputs=self.inputs[cell.inputs]))
        return StudyPlan(name=self.name, created=self.created, until=self.until, command=self.command, cells=cells)


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{re.sub(_BREAK, ', ', found[1])}]"


class _Distinct:
    """Distinct values in the order in which they came, by their JSON."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[bytes, int] = {}

    def place(self, text: bytes) -> int:
        place = self._places.setdefault(text, len(self.values))
        if place == len(self.values):
            self.values.append(from_json(text))
        return place


class _FirstCell(BaseModel):
    """A cell as version 0.1.0 wrote it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    config: dict[str, Any]
    inputs: dict[str, str] = {}


def _of_first_version(values: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of version 0.1.0 in today's form."""
    if not isinstance(values["cells"], list):
        return values
    configs, inputs = _Distinct(), _Distinct()
    cells = []
    for found in map(_FirstCell.model_validate, values["cells"]):
        seed = found.config.pop("seed", 0)
        cells.append((found.id, configs.place(to_json(found.config)), seed, inputs.place(to_json(found.inputs))))
    return values | {"configs": configs.values, "inputs": inputs.values, "cells": cells}
