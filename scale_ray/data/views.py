"""Weak, strong and evaluation views: uint8 batches (B, 3, R, R) in, normalised float32 batches (B, 3, S, S) out.

Every image draws its own parameters, RandAugment's operations included (torchvision.transforms.v2 and kornia's
RandAugment draw operations once a batch). All draws come from the CPU generator that is passed in and take one call per
view, so what image i draws depends on the generator and on i alone, not on the batch's size or device. Every worker
draws the parameters of the whole batch and uses those of its rows: an image looks the same whoever makes its view.
Parameters are small CPU tensors; nothing is ever read back from the images' device.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as nn_functional
from kornia import enhance
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as torchvision_functional

from scale_ray.config import ViewsConfig, check_name
from scale_ray.workers import ALONE, Workers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ASPECT = (3 / 4, 4 / 3)
_MAGNITUDE_BINS = 30

# The ranges of `colour_affine`: degrees for angles, shares of the side for translation.
_GAIN = (0.5, 1.5)
_BIAS = (-0.2, 0.2)
_ROTATION = (-20.0, 20.0)
_ZOOM = (0.8, 1.2)
_SHEAR = (-10.0, 10.0)
_TRANSLATION = (-0.1, 0.1)


def evaluation_view(images: Tensor, *, size: int) -> Tensor:
    """Centre crop and normalise: no randomness.

    Args:
        images: uint8, (B, 3, R, R) with R >= size.
        size: S, the side in pixels of what the network sees.

    Returns:
        float32, (B, 3, S, S).
    """
    assert images.dtype == torch.uint8
    return _normalise(torchvision_functional.center_crop(images, [size, size]) / 255)


def weak_view(
    images: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Random resized crop, horizontal flip with probability 0.5 where `views.flip`, normalise.

    Args:
        images: uint8, (B, 3, R, R): this worker's rows of the global batch.
        views: `crop_scale` is the range of the share of the area that a crop keeps.
        size: S, the side in pixels of what the network sees.
        generator: the CPU generator of this step and stream, in the same state on every worker.
        workers: who shares the global batch.

    Returns:
        float32, (B, 3, S, S).
    """
    return _normalise(_random_crop(images, views, size, generator, workers))


def strong_view(
    images: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """A crop and flip like `weak_view`'s, drawn anew, then `STRONG_VIEWS[views.strong]`, normalise.

    Arguments and result are those of `weak_view`.

    Raises:
        ConfigError: `views.strong` is no name in STRONG_VIEWS.
    """
    check_name("strong view", views.strong, STRONG_VIEWS)
    # A generator of its own, seeded before the crops draw: so its state does not depend on the size of the batch.
    seed = int(torch.randint(2**62, (), generator=generator))
    crops = _random_crop(images, views, size, generator, workers)
    return _normalise(STRONG_VIEWS[views.strong](crops, views, torch.Generator().manual_seed(seed), workers))


def crop_and_flip(images: Tensor, boxes: Tensor, flips: Tensor, *, size: int) -> Tensor:
    """Cut a box out of every image, mirror it where asked, and resize it to (size, size): one bilinear warp.

    There is no antialiasing: fine at the usual 256 -> 224, where a crop shrinks by 1.15 at most. Decode images to a
    `data.resize` not far above `data.image_size`.

    Args:
        images: uint8, (B, 3, R, R).
        boxes: (B, 4) on the CPU: left, top, width, height as shares of the side.
        flips: bool, (B,) on the CPU.
        size: side of the result in pixels.

    Returns:
        float32 in [0, 1], (B, 3, size, size).
    """
    assert images.dtype == torch.uint8
    left, top, width, height = boxes.unbind(1)
    mirrored = torch.where(flips, -width, width)
    matrices = _matrices(mirrored, 0, 2 * left + width - 1, 0, height, 2 * top + height - 1)
    return _warp(images.float(), matrices, size=size, padding="border").div_(255)


def randaugment(images: Tensor, views: ViewsConfig, generator: Generator, workers: Workers = ALONE) -> Tensor:
    """RandAugment with operations and signs drawn for every image.

    Operations and magnitude ranges are those of torchvision's RandAugment; warps are bilinear (its default is nearest)
    and fill with black.

    Cubuk et al., RandAugment, https://arxiv.org/abs/1909.13719;
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandAugment.html

    Args:
        images: float in [0, 1], (B, 3, H, W): this worker's rows of the global batch.
        views: `randaugment_operations` rounds at `randaugment_magnitude` of 30.
        generator: the CPU generator to draw from.
        workers: who shares the global batch.

    Returns:
        float in [0, 1], (B, 3, H, W).
    """
    batch = workers.size * len(images)
    draws = torch.rand(batch, views.randaugment_operations, 2, generator=generator)[workers.rows(batch)]
    drawn = (draws[..., 0] * len(OPERATIONS)).long()
    strengths = torch.where(draws[..., 1] < 0.5, -1.0, 1.0) * (views.randaugment_magnitude / _MAGNITUDE_BINS)
    places = torch.arange(len(images))
    for number in range(views.randaugment_operations):
        # Images of one operation stand side by side: few large pieces of work, which a GPU is told of in little time.
        order = drawn[places, number].argsort(stable=True)
        places = places[order]
        images = images[_like(order, images)]
        counts = drawn[:, number].bincount(minlength=len(OPERATIONS)).tolist()
        parts = zip(OPERATIONS.values(), images.split(counts), strengths[places, number].split(counts), strict=True)
        for operation, members, strength in parts:
            if len(members) > 0 and operation is not identity:
                members.copy_(operation(members, strength))
    return images[_like(places.argsort(), images)]


def colour_affine(images: Tensor, views: ViewsConfig, generator: Generator, workers: Workers = ALONE) -> Tensor:
    """Colour inversion (p = 0.5), gain and bias of each channel, and a small affine warp: for drawn digits.

    Args:
        images: float in [0, 1], (B, 3, S, S): this worker's rows of the global batch.
        views: not read; every strong view has this signature.
        generator: the CPU generator to draw from.
        workers: who shares the global batch.

    Returns:
        float in [0, 1], (B, 3, S, S).
    """
    batch = workers.size * len(images)
    draws, rows = torch.rand(batch, 12, generator=generator), workers.rows(batch)
    sign = torch.where(draws[rows, :1] < 0.5, -1.0, 1.0)
    gain, bias = _between(draws[rows, 1:4], _GAIN), _between(draws[rows, 4:7], _BIAS)
    scale, sign, bias = (_like(part, images)[..., None, None] for part in (gain * sign, sign, bias))
    # With x' = x or 1 - x and m' the mean of x', this is gain (x' - m') + m' + bias in one pass over the image.
    mean = images.mean(dim=(2, 3), keepdim=True)
    inverted_mean = sign * mean + (1 - sign) / 2
    coloured = torch.addcmul(inverted_mean + bias - scale * mean, scale, images).clamp_(0, 1)

    angle, zoom, shear, right, down = draws[:, 7:].unbind(1)
    cos, sin = _between(angle, _ROTATION).deg2rad().cos(), _between(angle, _ROTATION).deg2rad().sin()
    slope = _between(shear, _SHEAR).deg2rad().tan()
    zoom, right, down = _between(zoom, _ZOOM), 2 * _between(right, _TRANSLATION), 2 * _between(down, _TRANSLATION)
    matrices = _matrices(cos / zoom, (cos * slope - sin) / zoom, -right, sin / zoom, (sin * slope + cos) / zoom, -down)
    return _warp(coloured, matrices[rows], size=images.shape[-1], padding="border")


StrongView = Callable[[Tensor, ViewsConfig, Generator, Workers], Tensor]

STRONG_VIEWS: dict[str, StrongView] = {"randaugment": randaugment, "colour_affine": colour_affine}


# RandAugment's operations. Each takes images in [0, 1], (B, 3, H, W), and strengths in [-1, 1], (B,) on the CPU;
# operations without a sign take the strength's absolute value. New images are returned.


def identity(images: Tensor, strength: Tensor) -> Tensor:
    return images


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    # About the upper left corner, as in torchvision: hence the shift beside the slope.
    return _warp(images, _matrices(1, 0.3 * strength, 0.3 * strength, 0, 1, 0))


def shear_y(images: Tensor, strength: Tensor) -> Tensor:
    return _warp(images, _matrices(1, 0, 0, 0.3 * strength, 1, 0.3 * strength))


def translate_x(images: Tensor, strength: Tensor) -> Tensor:
    return _warp(images, _matrices(1, 0, -_whole_pixels(strength, images.shape[-1]), 0, 1, 0))


def translate_y(images: Tensor, strength: Tensor) -> Tensor:
    return _warp(images, _matrices(1, 0, 0, 0, 1, -_whole_pixels(strength, images.shape[-2])))


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    angle = math.radians(30) * strength
    return _warp(images, _matrices(angle.cos(), -angle.sin(), 0, angle.sin(), angle.cos(), 0))


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    return images.mul(_factor(strength, images)).clamp_(0, 1)


def color(images: Tensor, strength: Tensor) -> Tensor:
    return _blend(torchvision_functional.rgb_to_grayscale(images), images, strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    # Line by line first: torch splits a sum to a single number among its threads, and their count would show.
    mean = torchvision_functional.rgb_to_grayscale(images).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return _blend(mean, images, strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    return enhance.sharpness(images, _like(1 + 0.9 * strength, images))


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    return enhance.posterize(images, _like(8 - (4 * strength.abs()).round().int(), images))


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    return enhance.solarize(images, _like(1 - strength.abs(), images))


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    return torchvision_functional.autocontrast(images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    return torchvision_functional.equalize(images)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Identity": identity,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Rotate": rotate,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
}


def _random_crop(images: Tensor, views: ViewsConfig, size: int, generator: Generator, workers: Workers) -> Tensor:
    """Ranges of torchvision's RandomResizedCrop; the aspect is narrowed to what fits, not drawn again until it does."""
    batch = workers.size * len(images)
    area, aspect, left, top, flip = torch.rand(batch, 5, generator=generator).unbind(1)
    area = _between(area, views.crop_scale)
    narrowest, widest = area.clamp(min=_ASPECT[0]).log(), area.reciprocal().clamp(max=_ASPECT[1]).log()
    ratio = torch.lerp(narrowest, widest, aspect).exp()
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    boxes = torch.stack([left * (1 - width), top * (1 - height), width, height], dim=1)
    # Sliced as late as here: log and exp of a batch may round other than those of its parts.
    rows = workers.rows(batch)
    return crop_and_flip(images, boxes[rows], (flip[rows] < 0.5) & views.flip, size=size)


def _matrices(*entries: Tensor | float) -> Tensor:
    """Six entries, (B,) or the same for all, row by row -> (B, 2, 3) maps from a place in the result to one in the
    input, where both images run from -1 to 1."""
    given = next(entry for entry in entries if isinstance(entry, Tensor))
    return torch.stack(
        [entry if isinstance(entry, Tensor) else torch.full_like(given, entry) for entry in entries], dim=1
    ).view(-1, 2, 3)


def _warp(
    images: Tensor, matrices: Tensor, *, size: int | None = None, padding: Literal["zeros", "border"] = "zeros"
) -> Tensor:
    shape = list(images.shape) if size is None else [*images.shape[:2], size, size]
    grid = _grid(_like(matrices, images), shape)
    return nn_functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _grid(matrices: Tensor, shape: list[int]) -> Tensor:
    """Torch's affine_grid (B, H, W, 2); on a CPU some ten times faster where rows and columns stay what they are.

    Torch multiplies a matrix of three columns for every pixel. Without rotation and shear each row and each column
    needs one product and one sum, in the same order: the bits are the same, too.
    """
    if matrices.device.type != "cpu" or matrices[:, 0, 1].any() or matrices[:, 1, 0].any():
        return nn_functional.affine_grid(matrices, shape, align_corners=False)
    batch, _, height, width = shape
    grid = matrices.new_empty(batch, height, width, 2)
    grid[..., 0] = (_centres(width) * matrices[:, 0, :1] + matrices[:, 0, 2:])[:, None, :]
    grid[..., 1] = (_centres(height) * matrices[:, 1, 1:2] + matrices[:, 1, 2:])[:, :, None]
    return grid


def _centres(side: int) -> Tensor:
    """Where the pixels' centres lie on a side that runs from -1 to 1."""
    return torch.linspace(-1, 1, side) * (side - 1) / side


def _whole_pixels(strength: Tensor, side: int) -> Tensor:
    """Torchvision's largest translation, 150 / 331 of the side, cut to whole pixels; a side is 2 long."""
    return (strength * (150 / 331 * side)).trunc() * (2 / side)


def _factor(strength: Tensor, images: Tensor) -> Tensor:
    return _like(1 + 0.9 * strength, images).view(-1, 1, 1, 1)


def _blend(degenerate: Tensor, images: Tensor, strength: Tensor) -> Tensor:
    return torch.lerp(degenerate, images, _factor(strength, images)).clamp_(0, 1)


def _between(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + (high - low) * uniform


def _like(parameters: Tensor, images: Tensor) -> Tensor:
    # Not blocking on CUDA: a plain `.to` would wait for all work queued there.
    return parameters.to(images.device, non_blocking=images.is_cuda)


def _normalise(images: Tensor) -> Tensor:
    """In place: every caller hands over a tensor of its own."""
    mean, std = (_like(torch.tensor(values).view(3, 1, 1), images) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images.sub_(mean).div_(std)
