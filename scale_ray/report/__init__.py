"""The collector: reads a store and nothing else; needs neither torch nor ray."""

from scale_ray.report.aggregate import Cell, Grid, grids
from scale_ray.report.build import ReportPaths, write_report
from scale_ray.report.load import ReportError, load
from scale_ray.report.tables import terminal_grid

__all__ = ["Cell", "Grid", "ReportError", "ReportPaths", "grids", "load", "terminal_grid", "write_report"]
