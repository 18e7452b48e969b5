"""The collector: reads a store and nothing else; needs neither torch nor ray.

Names are imported on first use, so that `load` needs no more than pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scale_ray.report.build import ReportPaths, write_report
    from scale_ray.report.read.completeness import check, holes
    from scale_ray.report.read.errors import ReportError
    from scale_ray.report.read.load import load, load_curves
    from scale_ray.report.results import Results, Table
    from scale_ray.report.selection.candidates import Candidates, candidates
    from scale_ray.report.selection.choose import choice
    from scale_ray.report.selection.regret import regrets
    from scale_ray.report.tables.axes import tabulate
    from scale_ray.report.tables.forms import grids
    from scale_ray.report.tables.grid import Entry, Grid, Stack, stacks
    from scale_ray.report.tables.terminal import terminal_table

__all__ = [
    "Candidates", "Entry", "Grid", "ReportError", "ReportPaths", "Results", "Stack", "Table", "candidates", "check",
    "choice", "grids", "holes", "load", "load_curves", "regrets", "stacks", "tabulate", "terminal_table",
    "write_report",
]  # fmt: skip

_MODULES = {
    "build": ["ReportPaths", "write_report"],
    "selection.candidates": ["Candidates", "candidates"],
    "selection.choose": ["choice"],
    "selection.regret": ["regrets"],
    "read.completeness": ["check", "holes"],
    "read.errors": ["ReportError"],
    "read.load": ["load", "load_curves"],
    "results": ["Results", "Table"],
    "tables.axes": ["tabulate"],
    "tables.forms": ["grids"],
    "tables.grid": ["Entry", "Grid", "Stack", "stacks"],
    "tables.terminal": ["terminal_table"],
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
