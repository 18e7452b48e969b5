"""Weak, strong and evaluation views: from uint8 batches (B, 3, R, R) to normalised float32 batches (B, 3, S, S).

Parameters are drawn for each image, those of RandAugment included (the RandAugment of torchvision.transforms.v2 and of
kornia draws its operations once per batch). All random numbers of a view come from one call with the CPU generator that
is passed in, so the parameters of image i depend on the generator and on i, not on the size or the device of the batch.
Every worker draws the parameters of the global batch and uses those of its rows, so a view does not depend on the
worker that makes it. Parameters are small CPU tensors; nothing is read back from the images' device.

torchvision and kornia are imported when a view is made: with torchvision comes torch's compiler, and a plan makes no
view.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as nn_functional
from torch import Generator, Tensor

from scale_ray.config import ViewsConfig, check_name
from scale_ray.registry import Registry
from scale_ray.workers import ALONE, Workers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ASPECT = (3 / 4, 4 / 3)
_MAGNITUDE_BINS = 30

# Ranges of `colour_affine`: angles in degrees, translation as a share of the side.
_GAIN = (0.5, 1.5)
_BIAS = (-0.2, 0.2)
_ROTATION = (-20.0, 20.0)
_ZOOM = (0.8, 1.2)
_SHEAR = (-10.0, 10.0)
_TRANSLATION = (-0.1, 0.1)

# Of `masked`: the side of a patch as a share of the image's, and the probability that a patch is masked.
_PATCH = 64 / 224
_MASKED = 0.7


def evaluation_view(images: Tensor, *, size: int) -> Tensor:
    """Centre crop and normalisation, without randomness.

    Args:
        images: uint8, (B, 3, R, R) with R >= size.
        size: S, side of the network's input in pixels.

    Returns:
        float32, (B, 3, S, S).
    """
    from torchvision.transforms.v2.functional import center_crop

    assert images.dtype == torch.uint8
    return _normalise(center_crop(images, [size, size]) / 255)


def weak_view(
    images: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Random resized crop, horizontal flip with probability 0.5 if `views.flip`, and normalisation.

    Args:
        images: uint8, (B, 3, R, R), this worker's rows of the global batch.
        views: `crop_scale` is the range of a crop's share of the image's area.
        size: S, side of the network's input in pixels.
        generator: the CPU generator of this step and stream, in the same state on every worker.
        workers: the processes that share the global batch.

    Returns:
        float32, (B, 3, S, S).
    """
    return _normalise(_random_crop(images, views, size, generator, workers))


def strong_view(
    images: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Random crop and flip as in `weak_view`, then `STRONG_VIEWS[views.strong]`, and normalisation.

    Arguments and result are those of `weak_view`. Crop and flip are drawn independently of the weak view's.

    Raises:
        ConfigError: `views.strong` is not a name in STRONG_VIEWS.
    """
    check_name("strong view", views.strong, STRONG_VIEWS)
    # The strong view has its own generator. It is seeded before the crops are drawn, so that its state does not depend
    # on the size of the batch.
    seed = int(torch.randint(2**62, (), generator=generator))
    crops = _random_crop(images, views, size, generator, workers)
    return _normalise(STRONG_VIEWS[views.strong](crops, views, torch.Generator().manual_seed(seed), workers))


def crop_and_flip(images: Tensor, boxes: Tensor, flips: Tensor, *, size: int) -> Tensor:
    """Crop a box from every image, flip it horizontally if requested, and resize it to (size, size), in one warp.

    Interpolation is bilinear without antialiasing. With the usual 256 -> 224 pixels a crop shrinks by a factor of 1.15
    at most. `data.resize` should therefore not be much larger than `data.image_size`.

    Args:
        images: uint8, (B, 3, R, R).
        boxes: (B, 4) on the CPU: left, top, width and height as shares of the side.
        flips: bool, (B,) on the CPU.
        size: side of the result in pixels.

    Returns:
        float32 in [0, 1], (B, 3, size, size).
    """
    assert images.dtype == torch.uint8
    left, top, width, height = boxes.unbind(1)
    signed_width = torch.where(flips, -width, width)
    matrices = _matrices(signed_width, 0, 2 * left + width - 1, 0, height, 2 * top + height - 1)
    return _warp(images.float(), matrices, size=size, padding="border").div_(255)


def randaugment(images: Tensor, views: ViewsConfig, generator: Generator, workers: Workers = ALONE) -> Tensor:
    """RandAugment with operations and signs drawn for each image.

    Operations and ranges of magnitudes are those of torchvision's RandAugment. Warps are bilinear (by default
    torchvision's are nearest) and fill with black.

    Cubuk et al., RandAugment, https://arxiv.org/abs/1909.13719;
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandAugment.html

    Args:
        images: float in [0, 1], (B, 3, H, W), this worker's rows of the global batch.
        views: `randaugment_operations` operations per image, at magnitude `randaugment_magnitude` of 30.
        generator: the CPU generator to draw from.
        workers: the processes that share the global batch.

    Returns:
        float in [0, 1], (B, 3, H, W).
    """
    batch = workers.size * len(images)
    draws = torch.rand(batch, views.randaugment_operations, 2, generator=generator)[workers.rows(batch)]
    drawn = (draws[..., 0] * len(OPERATIONS)).long()
    strengths = torch.where(draws[..., 1] < 0.5, -1.0, 1.0) * (views.randaugment_magnitude / _MAGNITUDE_BINS)
    indices = torch.arange(len(images))
    for number in range(views.randaugment_operations):
        # Sorting by operation gives few large calls, which a GPU launches faster than many small ones.
        order = drawn[indices, number].argsort(stable=True)
        indices = indices[order]
        images = images[_like(order, images)]
        counts = drawn[:, number].bincount(minlength=len(OPERATIONS)).tolist()
        parts = zip(OPERATIONS.values(), images.split(counts), strengths[indices, number].split(counts), strict=True)
        for operation, members, strength in parts:
            if len(members) > 0 and operation is not identity:
                members.copy_(operation(members, strength))
    return images[_like(indices.argsort(), images)]


def colour_affine(images: Tensor, views: ViewsConfig, generator: Generator, workers: Workers = ALONE) -> Tensor:
    """Colour inversion (p = 0.5), gain and bias per channel, and a small affine warp; made for images of digits.

    Args:
        images: float in [0, 1], (B, 3, S, S), this worker's rows of the global batch.
        views: not used; it is part of the signature of every strong view.
        generator: the CPU generator to draw from.
        workers: the processes that share the global batch.

    Returns:
        float in [0, 1], (B, 3, S, S).
    """
    batch = workers.size * len(images)
    draws, rows = torch.rand(batch, 12, generator=generator), workers.rows(batch)
    sign = torch.where(draws[rows, :1] < 0.5, -1.0, 1.0)
    gain, bias = _between(draws[rows, 1:4], _GAIN), _between(draws[rows, 4:7], _BIAS)
    scale, sign, bias = (_like(part, images)[..., None, None] for part in (gain * sign, sign, bias))
    # This is gain (x' - m') + m' + bias in one pass, where x' is x or 1 - x and m' is the mean of x'.
    mean = images.mean(dim=(2, 3), keepdim=True)
    inverted_mean = sign * mean + (1 - sign) / 2
    coloured = torch.addcmul(inverted_mean + bias - scale * mean, scale, images).clamp_(0, 1)

    angle, zoom, shear, right, down = draws[:, 7:].unbind(1)
    cos, sin = _between(angle, _ROTATION).deg2rad().cos(), _between(angle, _ROTATION).deg2rad().sin()
    slope = _between(shear, _SHEAR).deg2rad().tan()
    zoom, right, down = _between(zoom, _ZOOM), 2 * _between(right, _TRANSLATION), 2 * _between(down, _TRANSLATION)
    matrices = _matrices(cos / zoom, (cos * slope - sin) / zoom, -right, sin / zoom, (sin * slope + cos) / zoom, -down)
    return _warp(coloured, matrices[rows], size=images.shape[-1], padding="border")


def masked(images: Tensor, views: ViewsConfig, generator: Generator, workers: Workers = ALONE) -> Tensor:
    """Most of the image's patches replaced by the mean colour, which is 0 after normalisation.

    Hoyer et al., MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation, CVPR 2023
    (https://arxiv.org/abs/2212.01322): patches with a side of 64 of 224 pixels, each masked with probability 0.7. On
    any image they have that share of its side; the number of patches along it is rounded.

    Args:
        images: float in [0, 1], (B, 3, S, S), this worker's rows of the global batch.
        views: not used; it is part of the signature of every strong view.
        generator: the CPU generator to draw from.
        workers: the processes that share the global batch.

    Returns:
        float in [0, 1], (B, 3, S, S).
    """
    batch, patches = workers.size * len(images), round(1 / _PATCH)
    kept = torch.rand(batch, 1, patches, patches, generator=generator)[workers.rows(batch)] > _MASKED
    kept = nn_functional.interpolate(_like(kept.float(), images), images.shape[2:], mode="nearest")
    mean = _like(torch.tensor(IMAGENET_MEAN, dtype=images.dtype).view(3, 1, 1), images)
    return torch.where(kept > 0, images, mean)


StrongView = Callable[[Tensor, ViewsConfig, Generator, Workers], Tensor]

STRONG_VIEWS: Registry[StrongView] = Registry(
    {"randaugment": randaugment, "colour_affine": colour_affine, "masked": masked}
)


# RandAugment's operations. Each maps images in [0, 1], (B, 3, H, W), and strengths in [-1, 1], (B,) on the CPU, to new
# images. Operations without a direction use the absolute value of the strength.


def identity(images: Tensor, strength: Tensor) -> Tensor:
    return images


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    # The origin is the upper left corner, as in torchvision; therefore there is a shift besides the slope.
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
    return _blend(_grey(images), images, strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    # Averaged by line first. Torch splits a reduction to one number among its threads, so that the last bits of a
    # direct mean would depend on their number.
    mean = _grey(images).mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
    return _blend(mean, images, strength)


def _grey(images: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    return rgb_to_grayscale(images)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    from kornia import enhance

    return enhance.sharpness(images, _like(1 + 0.9 * strength, images))


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    from kornia import enhance

    return enhance.posterize(images, _like(8 - (4 * strength.abs()).round().int(), images))


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    from kornia import enhance

    return enhance.solarize(images, _like(1 - strength.abs(), images))


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.autocontrast(images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.equalize(images)


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
    """Random crops with the ranges of torchvision's RandomResizedCrop.

    The range of aspect ratios is limited to those that fit; torchvision draws again until one fits.
    """
    batch = workers.size * len(images)
    area, aspect, left, top, flip = torch.rand(batch, 5, generator=generator).unbind(1)
    area = _between(area, views.crop_scale)
    narrowest, widest = area.clamp(min=_ASPECT[0]).log(), area.reciprocal().clamp(max=_ASPECT[1]).log()
    ratio = torch.lerp(narrowest, widest, aspect).exp()
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    boxes = torch.stack([left * (1 - width), top * (1 - height), width, height], dim=1)
    # Sliced only here, because log and exp of the whole batch may round differently from those of a part.
    rows = workers.rows(batch)
    return crop_and_flip(images, boxes[rows], (flip[rows] < 0.5) & views.flip, size=size)


def _matrices(*entries: Tensor | float) -> Tensor:
    """Affine maps (B, 2, 3) from coordinates in the result to coordinates in the input, both from -1 to 1.

    Args:
        entries: the six entries, row by row; each is (B,) or the same number for all.
    """
    tensor = next(entry for entry in entries if isinstance(entry, Tensor))
    return torch.stack(
        [entry if isinstance(entry, Tensor) else torch.full_like(tensor, entry) for entry in entries], dim=1
    ).view(-1, 2, 3)


def _warp(
    images: Tensor, matrices: Tensor, *, size: int | None = None, padding: Literal["zeros", "border"] = "zeros"
) -> Tensor:
    shape = list(images.shape) if size is None else [*images.shape[:2], size, size]
    grid = _grid(_like(matrices, images), shape)
    return nn_functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _grid(matrices: Tensor, shape: list[int]) -> Tensor:
    """Torch's affine_grid, (B, H, W, 2). Without rotation and shear it is about ten times as fast on a CPU.

    Torch multiplies a matrix with three columns for every pixel. Without rotation and shear, one product and one sum
    per row and column are enough. They are done in the same order, so the bits are the same.
    """
    if matrices.device.type != "cpu" or matrices[:, 0, 1].any() or matrices[:, 1, 0].any():
        return nn_functional.affine_grid(matrices, shape, align_corners=False)
    batch, _, height, width = shape
    grid = matrices.new_empty(batch, height, width, 2)
    grid[..., 0] = (_centres(width) * matrices[:, 0, :1] + matrices[:, 0, 2:])[:, None, :]
    grid[..., 1] = (_centres(height) * matrices[:, 1, 1:2] + matrices[:, 1, 2:])[:, :, None]
    return grid


def _centres(side: int) -> Tensor:
    """(side,) coordinates of the pixels' centres on a side from -1 to 1."""
    return torch.linspace(-1, 1, side) * (side - 1) / side


def _whole_pixels(strength: Tensor, side: int) -> Tensor:
    """(B,) translations by whole pixels, at most torchvision's 150 / 331 of the side; the side has length 2."""
    return (strength * (150 / 331 * side)).trunc() * (2 / side)


def _factor(strength: Tensor, images: Tensor) -> Tensor:
    return _like(1 + 0.9 * strength, images).view(-1, 1, 1, 1)


def _blend(degenerate: Tensor, images: Tensor, strength: Tensor) -> Tensor:
    return torch.lerp(degenerate, images, _factor(strength, images)).clamp_(0, 1)


def _between(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    return low + (high - low) * uniform


def _like(parameters: Tensor, images: Tensor) -> Tensor:
    # Non-blocking on CUDA, because a plain `.to` would wait for all work queued there.
    return parameters.to(images.device, non_blocking=images.is_cuda)


def _normalise(images: Tensor) -> Tensor:
    """Normalise with ImageNet's mean and deviation, in place: every caller passes a tensor that it owns."""
    mean, std = (_like(torch.tensor(values).view(3, 1, 1), images) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return images.sub_(mean).div_(std)
