"""The collector: reads a store and nothing else; needs neither torch nor ray."""

from scale_ray.report.aggregate import grids
from scale_ray.report.axes import tabulate
from scale_ray.report.build import ReportPaths, write_report
from scale_ray.report.completeness import check, holes
from scale_ray.report.grid import Cell, Grid, Stack, stacks
from scale_ray.report.load import ReportError, load, load_curves
from scale_ray.report.tables import terminal_table

__all__ = [
    "Cell", "Grid", "ReportError", "ReportPaths", "Stack", "check", "grids", "holes", "load", "load_curves", "stacks",
    "tabulate", "terminal_table", "write_report",
]  # fmt: skip
