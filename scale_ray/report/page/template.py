"""What all pages have in common: the template's environment, style and script, tables as texts, images as data."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup, escape

# Text of a verdict -> its CSS class.
_VERDICTS = {
    "holds": "holds",
    "does not hold": "fails",
    "too few cells": "soft",
    "differs": "holds",
    "higher": "holds",
    "lower": "fails",
    "n too small": "soft",
}

_LONG = 24  # characters

# The most that all images of a page take together. The page names images beyond it; their files are in `figures`.
_IMAGE_BYTES = 3_000_000


class Picture(NamedTuple):
    """A figure as SVG, and the same for a phone's screen, where there is one."""

    title: str
    wide: bytes
    narrow: bytes | None = None


def render_page(
    name: str,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    *,
    more: jinja2.BaseLoader | None = None,
    **values: Any,
) -> str:
    """A page from a template of this package. It fetches nothing, and only its own script may run.

    Args:
        name: of the template.
        filters: further ones.
        more: has further templates.
        values: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*([more] if more else []), jinja2.FunctionLoader(part)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable} | dict(filters or {})
    script = part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(name).render(
        style=part("page.css"), script=script, script_hash=f"sha256-{digest}", **values
    )


def breakable(text: str) -> Markup:
    """A text that may be broken after `+`, `_` and `>`: labels such as `mean_teacher (ce+ssl)` have few blanks."""
    return Markup(re.sub(r"([+_]|&gt;)", r"\1<wbr>", str(escape(text))))


def part(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("scale_ray.report.page").joinpath(name).read_text("utf-8")


def table_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns, and rows of (text, CSS class). Long texts may be broken."""
    rows = [
        [(text, _VERDICTS.get(text, "words" if len(text) > _LONG else "")) for text in values]
        for values in frame.to_numpy(dtype=str)
    ]
    return {"columns": [str(name) for name in frame.columns], "rows": rows}


class Images:
    """Embeds images as data URIs until _IMAGE_BYTES are used."""

    def __init__(self) -> None:
        self.left = _IMAGE_BYTES

    def of(self, picture: Picture) -> tuple[str, str | None, str | None]:
        """Title, URI and URI of the narrow form; None where there is no image or no room for it."""
        return picture.title, self._embed(picture.wide), self._embed(picture.narrow)

    def _embed(self, svg: bytes | None) -> str | None:
        if svg is None:
            return None
        uri = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        if len(uri) > self.left:
            return None
        self.left -= len(uri)
        return uri
