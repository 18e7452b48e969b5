"""The style of all figures, and how they become files. It needs no display and gives the same bytes each time.

Lines differ in colour (Okabe and Ito's palette, safe for colour-blind readers), marker and dash, so that they can be
told apart in greyscale too. Shades come from colour maps with monotonic lightness.
"""

import io
import logging
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from scale_ray.store.files import replace_file

logger = logging.getLogger(__name__)

INK, SOFT, HOLE, BLUE = "#1b1f24", "#666666", "#f2f2f2", "#0072B2"
KINDS = ("png", "svg", "pdf")

SMALL = 8.5  # points; 11 pixels on a screen, the smallest text of a figure
_NARROW_WIDTH = 3.55  # inches; 340 pixels, which a phone shows without scaling
_CHARACTERS = 13  # of a title, an inch
_LEGEND_CHARACTERS = 12  # of a legend, an inch
_DPI, _MARGIN = 160, 0.1  # dots an inch, inches around a figure

_narrow: ContextVar[bool] = ContextVar("narrow", default=False)

Looks = dict[str, dict[str, Any]]  # label of a line -> its colour and marker

_COLOURS = ["#000000", BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "<"]  # not as many as colours, so that the two do not repeat together
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
    "svg.fonttype": "path",  # readers need no font
    "pdf.fonttype": 42,  # TrueType, as conferences require
}
# matplotlib's own font, which every installation has, and fonts that have the signs that it lacks, where installed.
_FONT = "DejaVu Sans"
_MORE_FONTS = [
    *(f"Noto Sans CJK {region}" for region in ("SC", "TC", "JP", "KR")),
    *("Noto Sans SC", "Noto Sans TC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Ethiopic"),
    *("Noto Emoji", "Symbola", "Unifont"),
]

_LACKING = r"Glyph (\d+) .* missing from"  # matplotlib's warning
_told: set[str] = set()  # signs that no font has: one message a process is enough

# Metadata that would make two files of one figure differ.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@contextmanager
def style() -> Iterator[None]:
    """The context in which every figure is drawn: a user's matplotlibrc does not change a report."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        installed = set(font_manager.get_font_names())
        mpl.rcParams["font.family"] = [_FONT, *(name for name in _MORE_FONTS if name in installed)]
        with _lacking_signs_in_one_line():
            yield


@contextmanager
def _lacking_signs_in_one_line() -> Iterator[None]:
    """Say once what matplotlib says of every sign in every drawing: no font has it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=_LACKING)
        yield
    lacking: dict[str, None] = {}
    for warning in caught:
        if sign := re.match(_LACKING, str(warning.message)):
            lacking[chr(int(sign[1]))] = None
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking and not _told:
        logger.warning(
            "figures: no installed font has %s: boxes stand for what is missing; install a font that has them, such as "
            "Noto Sans CJK, and make the report again",
            " ".join(lacking),
        )
    _told.update(lacking)


@contextmanager
def narrow() -> Iterator[None]:
    """Figures that are drawn inside the block are as wide as a phone's screen, with text of the usual size."""
    token = _narrow.set(True)
    try:
        yield
    finally:
        _narrow.reset(token)


def is_narrow() -> bool:
    return _narrow.get()


def blank(width: float, height: float, title: str) -> Figure:
    """An empty figure; width and height in inches. A narrow one is as wide as a phone's screen."""
    width = _NARROW_WIDTH if is_narrow() else width
    lines = textwrap.wrap(title, max(20, int(width * _CHARACTERS)))
    figure = Figure(figsize=(width, height + 0.16 * (len(lines) - 1)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def within_percent(axes: Axes, which: str) -> None:
    """End an axis of accuracies at 0 and 100 %: nothing is outside."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axes.set(**{f"{which}lim": (max(low, 0.0), min(high, 100.0))})


def look(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th line; together they repeat after 56 lines."""
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def single_seeds(axes: Axes, places: Sequence[tuple[float, float]], dot: dict[str, Any]) -> None:
    """Small open marks at (x, y), in the look of a dot whose seeds are too few for an interval."""
    for across, up in places:
        axes.plot(across, up, **{**dot, "markersize": 3, "markerfacecolor": "none", "linestyle": ""})


def legend(figure: Figure, looks: Looks, present: set[str], more: Sequence[Line2D]) -> None:
    """Add a legend below: the looks of the labels that are present, then more lines."""
    width = int(_LEGEND_CHARACTERS * figure.get_figwidth())
    shown = {label: textwrap.fill(label, width - 5) for label in looks if label in present}
    handles = [Line2D([], [], label=text, **looks[label]) for label, text in shown.items()]
    longest = max(map(len, shown), default=1)
    ncols = max(1, min(len(handles) + len(more), 4, width // (longest + 5)))
    rows = math.ceil((len(handles) + len(more)) / ncols) + sum(text.count("\n") for text in shown.values())
    figure.set_figheight(figure.get_figheight() + 0.22 * max(0, rows - 2))  # else a long legend takes the panels' room
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=ncols)


def render(figure: Figure, kind: str, box: Bbox | None = None) -> bytes:
    """The figure as `png`, `svg` or `pdf`, without a date or version in its metadata.

    Args:
        box: from `fitted`; by default it is measured.
    """
    out = io.BytesIO()
    with style():
        figure.savefig(out, format=kind, dpi=_DPI, metadata=_METADATA[kind], bbox_inches=box or fitted(figure))
    return out.getvalue()


def fitted(figure: Figure) -> Bbox:
    """Lay the figure out; return the box that holds all of it, in inches. It takes a drawing: once for all kinds."""
    with style():
        figure.set_dpi(_DPI)
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # `none` would draw everything once more for each file
        renderer = FigureCanvasAgg(figure).get_renderer()
        return figure.get_tightbbox(renderer).padded(_MARGIN)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem.png`, `stem.svg` and `stem.pdf`, each atomically. The folder must exist."""
    paths, box = [stem.with_name(f"{stem.name}.{kind}") for kind in KINDS], fitted(figure)
    for path, kind in zip(paths, KINDS, strict=True):
        replace_file(path, render(figure, kind, box))
    return paths
