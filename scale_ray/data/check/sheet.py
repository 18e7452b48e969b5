"""A contact sheet: images of every class of every domain, each as the evaluation, a weak and a strong view show it."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from scale_ray.config import ConfigError, DataConfig, TrialConfig
from scale_ray.data.benchmarks import BENCHMARKS, DataError
from scale_ray.data.defaults import base_config
from scale_ray.data.digits import SIDE, open_digits
from scale_ray.data.domain_files import DomainFiles, images_by_class
from scale_ray.data.image_folder import Listing
from scale_ray.data.pixels import MissingReader, UnreadableImage, decode_image
from scale_ray.data.views import IMAGENET_MEAN, IMAGENET_STD, evaluation_view, strong_view, weak_view
from scale_ray.data.work import in_threads
from scale_ray.errors import shown

_A_CLASS = 4
_WITHOUT_LABELS = 24
_A_DOMAIN = {".html": 240, ".png": 60}  # images; of more classes than that, the first are shown
_THUMB = 100  # side of a view in pixels
_BETWEEN = 2  # pixels between views
_STRIP = 3 * _THUMB + 2 * _BETWEEN
_AT_ONCE = 32  # images whose views are made together

# Of a PNG: the gap between strips, and where rows and headings are.
_GAP, _LABEL, _HEADING = 12, 150, 44
_PAPER, _INK, _SOFT, _LINE = "#f5f7f9", "#1b1f24", "#5c6670", "#9aa4ae"


Chosen = tuple[str, str, np.ndarray]  # class, name, pixels (3, S, S) uint8 of an image


@dataclass(frozen=True)
class Strip:
    """One image: three views side by side.

    Attributes:
        name: of its file.
        label: its class; empty without labels.
        views: _STRIP x _THUMB pixels.
    """

    name: str
    label: str
    views: Image.Image

    @property
    def address(self) -> str:
        """The views as an address that holds them."""
        content = io.BytesIO()
        self.views.save(content, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def check_sheet_name(file: Path) -> None:
    """Refuse a file that `write_sheet` could not write.

    Raises:
        ConfigError: its suffix is neither .html nor .png, or its folder does not exist.
    """
    if file.suffix.lower() not in _A_DOMAIN:
        raise ConfigError(f"--sheet {shown(file)}: a sheet is FILE.html or FILE.png")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"--sheet {shown(file)}: no such folder: {shown(file.absolute().parent)}")


def write_sheet(benchmark: str, domains: Mapping[str, DomainFiles], file: Path) -> int:
    """Write the sheet, and return the number of images on it. Images that cannot be read are left out.

    Args:
        benchmark: a name in BENCHMARKS; its defaults say which views are drawn.
        domains: domain -> its images; not used for `digits`.
        file: the sheet, .html or .png.

    Raises:
        DataError: it cannot be written.
    """
    config, most = base_config(benchmark), _A_DOMAIN[file.suffix.lower()]
    strips: dict[str, list[Strip]] = {}
    for domain in domains or BENCHMARKS[benchmark].domains:
        chosen = _of_files(domains[domain], config.data, most) if domains else _of_digits(domain, most)
        strips[domain] = list(_strips(chosen, config))
    try:
        if file.suffix.lower() == ".html":
            file.write_text(_page(benchmark, strips, config), encoding="utf-8")
        else:
            _drawing(strips).save(file, "PNG")
    except OSError as error:
        raise DataError(f"--sheet {shown(file)}: cannot be written ({error.strerror or error})") from error
    return sum(map(len, strips.values()))


def _some(listing: Listing, most: int) -> list[tuple[str, str]]:
    """Class and name of some images of each class, evenly spaced; without labels, one class has no name."""
    classes = dict(list(listing.items())[:most])
    number = max(1, min(_WITHOUT_LABELS if "" in classes else _A_CLASS, most // max(1, len(classes))))
    some = {
        name: [images[at * len(images) // number] for at in range(number)] if len(images) > number else images
        for name, images in classes.items()
    }
    return [(label, name) for label, images in some.items() for name in images]


def _of_files(files: DomainFiles, data: DataConfig, most: int) -> Iterator[Chosen]:
    def decode(image: tuple[str, str]) -> np.ndarray | None:
        try:
            return decode_image(files.read(image[1]), data.resize, data.fit)
        except (DataError, UnreadableImage, MissingReader):
            return None  # the check has said so

    chosen = _some({"": list(files.names)} if files.labels is None else images_by_class(files), most)
    decoded = in_threads(decode, chosen, f"views of {shown(files.name)}", together=_AT_ONCE)
    in_folder = 0 if files.listing is None else 1
    return (
        (label, name.split("/", in_folder)[in_folder], pixels)
        for (label, name), pixels in zip(chosen, decoded, strict=True)
        if pixels is not None
    )


def _of_digits(domain: str, most: int) -> Iterator[Chosen]:
    images, labels, _ = open_digits(domain)
    assert images.shape[-1] == SIDE
    listing = {str(label): [str(index) for index in np.flatnonzero(labels == label)] for label in np.unique(labels)}
    return ((label, name, images[int(name)]) for label, name in _some(listing, most))


def _strips(chosen: Iterator[Chosen], config: TrialConfig) -> Iterator[Strip]:
    """The views of images, a batch at a time; the same images have the same views."""
    generator, size = torch.Generator().manual_seed(0), config.data.image_size
    while batch := [item for _, item in zip(range(_AT_ONCE), chosen, strict=False)]:
        images = torch.from_numpy(np.stack([pixels for *_, pixels in batch]))
        views = [
            evaluation_view(images, size=size),
            weak_view(images, config.views, size=size, generator=generator),
            strong_view(images, config.views, size=size, generator=generator),
        ]
        for (label, name, _), rows in zip(batch, zip(*map(_thumbs, views), strict=True), strict=True):
            strip = Image.new("RGB", (_STRIP, _THUMB), _LINE)
            for place, thumb in enumerate(rows):
                strip.paste(thumb, (place * (_THUMB + _BETWEEN), 0))
            yield Strip(name, label, strip)


def _thumbs(views: torch.Tensor) -> list[Image.Image]:
    """What a network sees, as people see it: the normalisation undone."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = views.mul(std).add(mean).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each).resize((_THUMB, _THUMB), Image.Resampling.BILINEAR) for each in pixels]


def _by_class(strips: list[Strip]) -> dict[str, list[Strip]]:
    groups: dict[str, list[Strip]] = {}
    for strip in strips:
        groups.setdefault(strip.label, []).append(strip)
    return groups


def _page(benchmark: str, strips: Mapping[str, list[Strip]], config: TrialConfig) -> str:
    template = files("scale_ray.data.check").joinpath("sheet.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["shown"] = shown
    return environment.from_string(template).render(
        benchmark=benchmark,
        domains={domain: _by_class(of_domain) for domain, of_domain in strips.items()},
        config=config,
        width=_STRIP,
        height=_THUMB,
    )


def _drawing(strips: Mapping[str, list[Strip]]) -> Image.Image:
    """Domains one below the other, a row for each class."""
    domains = {domain: _by_class(of_domain) for domain, of_domain in strips.items()}
    most = max((len(row) for rows in domains.values() for row in rows.values()), default=1)
    row_height, strip_width = _THUMB + _GAP, _STRIP + _GAP
    height = sum(_HEADING + row_height * len(rows) for rows in domains.values()) + _GAP
    sheet = Image.new("RGB", (_LABEL + most * strip_width + _GAP, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    large, small = ImageFont.truetype(font, 18), ImageFont.truetype(font, 13)
    top = 0
    for domain, rows in domains.items():
        draw.text((_GAP, top + 14), f"{shown(domain)}: evaluation, weak and strong view of each image", _INK, large)
        top += _HEADING
        for label, row in rows.items():
            draw.multiline_text((_GAP, top), _broken(label, small), _SOFT, small)
            for place, strip in enumerate(row):
                sheet.paste(strip.views, (_LABEL + place * strip_width, top))
            top += row_height
    return sheet


def _broken(label: str, font: ImageFont.FreeTypeFont) -> str:
    """A class's name in lines that fit beside its row."""
    lines = [""]
    for character in shown(label):
        if font.getlength(lines[-1] + character) > _LABEL - 2 * _GAP:
            lines.append("")
        lines[-1] += character
    return "\n".join(lines[:6])
