"""Names in scripts that the figures' usual font lacks: another installed font has them, or one line says so."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from scale_ray.report.figures import style
from scale_ray.report.figures.style import KINDS, blank, render, save

NAMES = ["猫", "狗", "ลิง"]


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_told", set())


@pytest.fixture
def font(tmp_path: Path) -> Iterator[str]:
    """An installed font with the first name's sign."""
    pen = TTGlyphPen(None)
    for corner in ((0, 0), (0, 700), (900, 700), (900, 0)):
        pen.lineTo(corner) if pen.points else pen.moveTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Noto Sans CJK SC", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "cat.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "cat.ttf")
    yield "Noto Sans CJK SC"
    font_manager.fontManager.ttflist[:] = before
    font_manager.fontManager._findfont_cached.cache_clear()


def figure_of(names: list[str]) -> Figure:
    with style.style():
        figure = blank(4, 3, " ".join(names))
        figure.subplots().bar(names, range(len(names)))
    return figure


def test_signs_that_no_font_has_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for stem in ("one", "two"):
            save(figure_of(NAMES), tmp_path / stem)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("figures: no installed font has 猫 狗 ล")
    assert "install a font" in message


def test_an_installed_font_has_the_signs(font: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        save(figure_of(["猫", "dog"]), tmp_path / "figure")
    assert caplog.records == []


def test_another_font_changes_no_figure_without_such_signs(request: pytest.FixtureRequest) -> None:
    before = {kind: render(figure_of(["cat", "dog", "élan", "кот"]), kind) for kind in KINDS}
    request.getfixturevalue("font")
    assert {kind: render(figure_of(["cat", "dog", "élan", "кот"]), kind) for kind in KINDS} == before


def test_other_warnings_stay() -> None:
    with pytest.warns(UserWarning, match="another"), style.style():
        warnings.warn("another", stacklevel=1)
