"""How every figure looks, and how it becomes a file: no display needed, the same bytes each time.

Lines differ in colour (Okabe and Ito's, told apart by the colour-blind), in marker and in dash, so that they are told
apart in grey too; shades come from maps whose lightness only rises or only falls.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from scale_ray.store.files import replacing

INK, SOFT, HOLE, BLUE = "#1b1f24", "#666666", "#f2f2f2", "#0072B2"
KINDS = ("png", "svg", "pdf")

_COLOURS = ["#000000", BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "<", "*"]
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "scale-ray",
    "svg.fonttype": "path",  # needs no font where it is looked at
    "pdf.fonttype": 42,  # TrueType: what conferences ask for
}
# What would make two files of one figure differ.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside of it: a user's matplotlibrc does not change a report."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def blank(width: float, height: float, title: str) -> Figure:
    """An empty figure, inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    return figure


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th line; they repeat after eight."""
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def render(figure: Figure, kind: str) -> bytes:
    """The figure as `png`, `svg` or `pdf`, without a date or a version in it."""
    out = io.BytesIO()
    with style():
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):  # once for all kinds: it costs a drawing
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(out, format=kind, dpi=160, metadata=_METADATA[kind], bbox_inches="tight")
    return out.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem.png`, `stem.svg` and `stem.pdf`, each whole or not at all. The folder must be there."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in KINDS]
    for path, kind in zip(paths, KINDS, strict=True):
        with replacing(path) as file:
            file.write(render(figure, kind))
    return paths
