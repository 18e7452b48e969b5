import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import affine_grid
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from scale_ray.config import ConfigError, ViewsConfig
from scale_ray.data.views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPERATIONS,
    STRONG_VIEWS,
    _grid,
    colour_affine,
    crop_and_flip,
    evaluation_view,
    masked,
    randaugment,
    strong_view,
    weak_view,
)
from scale_ray.workers import ALONE, Workers

STRONG = sorted(STRONG_VIEWS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=seeded(seed))


def smooth(count: int, side: int) -> Tensor:
    """Photo-like images: noise enlarged, so that neighbours differ little and a warp's rounding shows little."""
    return F.resize(noise(count, side // 4), [side, side], antialias=True)


def without_normalisation(view: Tensor) -> Tensor:
    return view * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)


def every_view(
    images: Tensor, views: ViewsConfig, size: int, seed: int = 0, workers: Workers = ALONE
) -> dict[str, Tensor]:
    drawn = {"weak": weak_view(images, views, size=size, generator=seeded(seed), workers=workers)}
    for name in STRONG:
        chosen = views.model_copy(update={"strong": name})
        drawn[name] = strong_view(images, chosen, size=size, generator=seeded(seed), workers=workers)
    return drawn


# ---------------------------------------------------------------------------------------------- form and randomness


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 5),
    size=st.integers(8, 20),
    margin=st.integers(0, 9),
    low=st.floats(0.05, 1.0),
    flip=st.booleans(),
    operations=st.integers(0, 4),
    magnitude=st.integers(0, 30),
    seed=st.integers(0, 1000),
)
def test_views_are_finite_normalised_float32_of_the_asked_size_and_leave_the_input_alone(
    count: int, size: int, margin: int, low: float, flip: bool, operations: int, magnitude: int, seed: int
) -> None:
    views = ViewsConfig(
        crop_scale=(low, 1.0), flip=flip, randaugment_operations=operations, randaugment_magnitude=magnitude
    )
    images = noise(count, size + margin, seed)
    before = images.clone()
    drawn = every_view(images, views, size, seed) | {"evaluation": evaluation_view(images, size=size)}
    assert torch.equal(images, before)
    for name, view in drawn.items():
        assert view.dtype == torch.float32, name
        assert view.shape == (count, 3, size, size), name
        assert view.isfinite().all(), name
        values = without_normalisation(view)
        assert values.min() > -1e-5, name
        assert values.max() < 1 + 1e-5, name


def test_one_seed_gives_one_view_bit_for_bit_and_another_seed_another() -> None:
    images = smooth(8, 32)
    first, again = (every_view(images, ViewsConfig(), 28, seed=5) for _ in range(2))
    other = every_view(images, ViewsConfig(), 28, seed=6)
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_global_random_numbers_are_neither_used_nor_moved() -> None:
    images = noise(4, 16)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = every_view(images, ViewsConfig(), 16)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for name, view in every_view(images, ViewsConfig(), 16).items():
        assert torch.equal(view, first[name])


def test_the_same_image_twice_in_a_batch_is_seen_in_two_ways() -> None:
    images = smooth(1, 32).expand(16, -1, -1, -1)
    for name, view in every_view(images, ViewsConfig(), 32).items():
        distinct = {image.numpy().tobytes() for image in view}
        assert len(distinct) == 16, name


@pytest.mark.parametrize("shared", [1, 5])
def test_an_image_draws_by_generator_and_place_whatever_batch_follows(shared: int) -> None:
    images = smooth(24, 16)
    whole, part = every_view(images, ViewsConfig(), 16), every_view(images[:shared], ViewsConfig(), 16)
    for name in whole:
        torch.testing.assert_close(whole[name][:shared], part[name], msg=name)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 5),
    share=st.integers(1, 9),
    side=st.integers(8, 40),
    flip=st.booleans(),
    operations=st.integers(1, 4),
    magnitude=st.integers(0, 30),
    seed=st.integers(0, 1000),
)
def test_an_image_looks_the_same_bit_for_bit_whoever_makes_its_view(
    size: int, share: int, side: int, flip: bool, operations: int, magnitude: int, seed: int
) -> None:
    views = ViewsConfig(
        crop_scale=(0.3, 1.0), flip=flip, randaugment_operations=operations, randaugment_magnitude=magnitude
    )
    images = noise(size * share, side, seed)
    whole = every_view(images, views, side, seed)
    parts = [
        every_view(images[worker.rows(len(images))], views, side, seed, worker)
        for worker in (Workers(rank, size) for rank in range(size))
    ]
    for name, view in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), view), name


def test_the_strong_view_differs_from_the_weak_one_but_only_by_the_strong_part_where_that_is_idle() -> None:
    images = smooth(4, 16)
    idle = ViewsConfig(crop_scale=(1, 1), flip=False, randaugment_operations=0)
    weak = weak_view(images, idle, size=16, generator=seeded())
    assert torch.equal(strong_view(images, idle, size=16, generator=seeded()), weak)
    busy = idle.model_copy(update={"randaugment_operations": 2})
    assert not torch.equal(strong_view(images, busy, size=16, generator=seeded()), weak)


def test_an_unknown_strong_view_is_named_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown strong view 'randaugmnt': did you mean 'randaugment'\?"):
        strong_view(noise(1, 8), ViewsConfig(strong="randaugmnt"), size=8, generator=seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::UserWarning")  # the debug mode says that it is a prototype
def test_a_gpu_draws_the_same_parameters_and_is_never_waited_for() -> None:
    images = smooth(16, 32)
    on_host = every_view(images, ViewsConfig(randaugment_operations=4), 32)
    on_device = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = every_view(on_device, ViewsConfig(randaugment_operations=4), 32)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name in drawn:
        # Posterize, solarize and equalize may turn a rounding difference into a visible one, in few pixels.
        assert ((drawn[name].cpu() - on_host[name]).abs() > 1e-3).float().mean() < 0.01, name


# ------------------------------------------------------------------------------------------------ evaluation and weak


@pytest.mark.parametrize(("side", "size"), [(32, 32), (32, 28), (17, 8), (9, 8)])
def test_the_evaluation_view_is_torchvisions(side: int, size: int) -> None:
    images = noise(3, side)
    theirs = v2.Compose(
        [v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
    torch.testing.assert_close(evaluation_view(images, size=size), theirs(images))


def test_the_weak_view_of_whole_images_without_flip_is_the_evaluation_view() -> None:
    images = noise(4, 24)
    views = ViewsConfig(crop_scale=(1, 1), flip=False)
    weak = weak_view(images, views, size=24, generator=seeded())
    torch.testing.assert_close(weak, evaluation_view(images, size=24), atol=1e-4, rtol=0)


def test_the_weak_view_of_whole_images_without_flip_is_a_plain_resize() -> None:
    images = noise(4, 32)
    views = ViewsConfig(crop_scale=(1, 1), flip=False)
    weak = without_normalisation(weak_view(images, views, size=24, generator=seeded()))
    resized = F.resize(images / 255, [24, 24], InterpolationMode.BILINEAR, antialias=False)
    torch.testing.assert_close(weak, resized, atol=1e-4, rtol=0)


def test_flip_mirrors_about_half_of_the_images_and_nothing_else() -> None:
    images = noise(200, 8)
    weak = weak_view(images, ViewsConfig(crop_scale=(1, 1)), size=8, generator=seeded())
    plain = evaluation_view(images, size=8)
    is_plain = (weak - plain).abs().amax(dim=(1, 2, 3)) < 1e-4
    is_mirrored = (weak - plain.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (is_plain ^ is_mirrored).all()
    assert 70 <= is_mirrored.sum() <= 130


def test_crop_and_flip_by_hand() -> None:
    """A 4 x 4 image holds 16 r + c. Boxes that lie on pixels copy them; doubling a pixel pair interpolates between."""
    ramp = (16 * torch.arange(4).view(4, 1) + torch.arange(4)).to(torch.uint8).expand(3, 3, 4, 4)
    boxes = torch.tensor([[0.5, 0.25, 0.5, 0.5], [0.5, 0.25, 0.5, 0.5], [0.0, 0.0, 1.0, 0.5]])
    out = crop_and_flip(ramp, boxes, torch.tensor([False, True, False]), size=2) * 255
    expected = [
        [[18, 19], [34, 35]],  # columns 2-3 of rows 1-2
        [[19, 18], [35, 34]],  # the same, mirrored
        [[0.5, 2.5], [16.5, 18.5]],  # rows 0-1, columns averaged in pairs
    ]
    torch.testing.assert_close(out[:, 1], torch.tensor(expected))


def test_crops_keep_the_asked_area_and_aspect_and_lie_anywhere_within_the_image() -> None:
    """Images whose pixels hold their own place, so a view tells which box it came from."""
    side, size = 64, 16
    place = torch.arange(side, dtype=torch.uint8)
    images = torch.stack([place.expand(side, side), place.view(side, 1).expand(side, side), torch.zeros(side, side)])
    views = ViewsConfig(crop_scale=(0.2, 0.6), flip=False)
    count = 500
    weak = weak_view(images.to(torch.uint8).expand(count, -1, -1, -1), views, size=size, generator=seeded())
    places = (without_normalisation(weak) * 255 + 0.5) / side  # centres of the view's pixels, as shares of the side
    column, row = places[:, 0, 0], places[:, 1, :, 0]
    width, height = ((line[:, -1] - line[:, 0]) * size / (size - 1) for line in (column, row))
    left, top = column[:, 0] - width / size / 2, row[:, 0] - height / size / 2
    area, aspect = width * height, width / height
    assert area.min() > 0.2 - 1e-3
    assert area.max() < 0.6 + 1e-3
    assert area.mean().item() == pytest.approx(0.4, abs=0.02)
    assert aspect.min() > 3 / 4 - 1e-2
    assert aspect.max() < 4 / 3 + 1e-2
    assert aspect.log().mean().item() == pytest.approx(0, abs=0.03)
    for start, extent in ((left, width), (top, height)):
        assert start.min() > -1e-3
        assert (start + extent).max() < 1 + 1e-3
        assert (start / (1 - extent)).mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 12), (128, 128), (37, 224)])
def test_the_grid_is_torchs(height: int, width: int, shear: float) -> None:
    matrices = torch.rand(5, 2, 3, generator=seeded()) - 0.5
    matrices[:, 0, 1], matrices[:, 1, 0] = shear, 0
    shape = [5, 3, height, width]
    torch.testing.assert_close(_grid(matrices, shape), affine_grid(matrices, shape, align_corners=False))


# -------------------------------------------------------------------------------------------------------- randaugment

THEIRS = v2.RandAugment(interpolation=InterpolationMode.BILINEAR)


def torchvisions(images: Tensor, name: str, magnitude: int, sign: int) -> Tensor:
    """Torchvision's operation on uint8 images at a magnitude of 30, by its own table of ranges."""
    table, signed = THEIRS._AUGMENTATION_SPACE[name]
    bins = table(31, *images.shape[-2:])
    level = 0.0 if bins is None else float(bins[magnitude]) * (sign if signed else 1)
    return THEIRS._apply_image_or_video_transform(images, name, level, THEIRS.interpolation, THEIRS._fill)


# How far torchvision's rounding on uint8 may take it from the exact value, out of 255.
NEAREST, CUT = 0.501, 1.001
ROUNDING = {
    "Identity": 1e-3,
    "ShearX": NEAREST,
    "ShearY": NEAREST,
    "TranslateX": NEAREST,
    "TranslateY": NEAREST,
    "Rotate": NEAREST,
    "Brightness": CUT,
    "Color": CUT + 0.9 * CUT,  # the grey image is cut as well, and weighs 0.9 at most
    "Contrast": CUT + 0.9 * CUT,
    "Sharpness": CUT + 0.9 * NEAREST,  # the blurred image is rounded as well
    "Posterize": 1e-3,
    "Solarize": 1e-3,
    "AutoContrast": CUT,
    "Equalize": 1e-3,
}


def test_the_pool_is_torchvisions() -> None:
    assert list(OPERATIONS) == list(THEIRS._AUGMENTATION_SPACE)


@pytest.mark.parametrize("magnitude", [0, 9, 13, 30])  # magnitudes where no 8-bit value equals solarize's threshold
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_to_the_rounding_of_bytes(name: str, sign: int, magnitude: int) -> None:
    images = smooth(3, 48)
    strength = torch.full((3,), sign * magnitude / 30)
    ours = OPERATIONS[name](images / 255, strength) * 255
    theirs = torchvisions(images, name, magnitude, sign).float()
    assert (ours - theirs).abs().max() < ROUNDING[name]


def test_each_image_has_its_own_strength_and_unsigned_operations_ignore_the_sign() -> None:
    images = smooth(2, 16) / 255
    mixed = torch.tensor([-0.5, 0.9])
    unsigned = {"Identity", "Posterize", "Solarize", "AutoContrast", "Equalize"}
    for name, operation in OPERATIONS.items():
        alone = torch.cat([operation(images[i : i + 1], mixed[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(operation(images, mixed), alone, msg=name)
        assert torch.equal(operation(images, mixed), operation(images, -mixed)) == (name in unsigned), name


def test_the_number_of_threads_changes_no_bit() -> None:
    """Single images, over and over: torch splits a sum among threads where it has one number to find."""
    images, one = noise(12, 224) / 255, torch.tensor([0.7])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn = {
                name: torch.cat([operation(image, one) for image in images.split(1)])
                for name, operation in OPERATIONS.items()
            }
            drawn["colour_affine"] = colour_affine(images, ViewsConfig(), seeded())
            results.append(drawn)
    finally:
        torch.set_num_threads(before)
    for name, drawn in results[0].items():
        assert torch.equal(drawn, results[1][name]), name


def test_operations_and_signs_are_drawn_for_every_image() -> None:
    """One image many times: each result is one operation at one sign, and all of them occur, equally often."""
    image = smooth(1, 32) / 255
    count = 1400
    views = ViewsConfig(randaugment_operations=1, randaugment_magnitude=13)
    results = randaugment(image.expand(count, -1, -1, -1), views, seeded())
    matches = {}
    for name, operation in OPERATIONS.items():
        signed = [operation(image, torch.tensor([sign * 13 / 30])) for sign in (-1, 1)]
        matches[name] = torch.stack([(results - one).abs().amax(dim=(1, 2, 3)) < 1e-5 for one in signed])
    assert torch.stack([match.any(dim=0) for match in matches.values()]).sum(dim=0).eq(1).all()
    for name, match in matches.items():
        assert 65 <= match.any(dim=0).sum() <= 140, name
        assert match.any(dim=1).all(), name


def test_rounds_follow_each_other() -> None:
    """Two rounds of one image: some result is one operation after another, in that order."""
    image = smooth(1, 16) / 255
    views = ViewsConfig(randaugment_operations=2, randaugment_magnitude=30)
    results = randaugment(image.expand(600, -1, -1, -1), views, seeded())
    one = torch.ones(1)
    for first, second in (("Solarize", "Posterize"), ("Posterize", "Solarize")):
        expected = OPERATIONS[second](OPERATIONS[first](image, one), one)
        assert ((results - expected).abs().amax(dim=(1, 2, 3)) < 1e-5).any(), (first, second)


# ------------------------------------------------------------------------------------------------------ colour_affine


def test_colour_affine_inverts_half_of_the_images_and_moves_each_channel_by_itself() -> None:
    """Two flat halves, dark left and bright right: inversion swaps which is brighter, whatever gain and bias do."""
    image = torch.full((1, 3, 16, 16), 0.4)
    image[..., 8:] = 0.6
    results = colour_affine(image.expand(400, -1, -1, -1), ViewsConfig(), seeded())
    left, right = results[:, :, 4:12, 1].mean(dim=2), results[:, :, 4:12, -2].mean(dim=2)
    inverted = left > right
    assert (inverted.all(dim=1) | (~inverted).all(dim=1)).all()
    assert 160 <= inverted[:, 0].sum() <= 240
    gain = (right - left).abs() / 0.2
    assert gain.min() >= 0.5 - 1e-3
    assert gain.max() <= 1.5 + 1e-3
    assert gain.mean().item() == pytest.approx(1, abs=0.05)
    bias = (left + right) / 2 - 0.5
    assert bias.abs().max() <= 0.2 + 1e-3
    assert bias.mean().item() == pytest.approx(0, abs=0.02)
    for drawn in (gain, bias):
        assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 0.1
        assert drawn.std(dim=0).min() > 0.1


def test_colour_affine_moves_a_point_by_no_more_than_its_ranges_allow_and_pads_with_the_border() -> None:
    side = 41
    image = torch.zeros(1, 3, side, side)
    image[..., side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2] = 1
    results = colour_affine(image.expand(300, -1, -1, -1), ViewsConfig(), seeded())
    # Flat background: with the border as padding every corner stays the background's colour, never black.
    corners = results[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, corners[..., :1].expand_as(corners), atol=1e-5, rtol=0)
    signal = (results - corners.mean(dim=2)[..., None, None]).abs().sum(dim=1)
    place = torch.arange(side) - side // 2
    weight = signal.sum(dim=(1, 2))
    right, down = ((signal.sum(dim=axis) * place).sum(dim=1) / weight for axis in (1, 2))
    # 10 % of 41 pixels to a side, seen through rotation, zoom and shear, stays below 0.1 x 41 x sqrt(2) x 1.2 x 1.2.
    distance = torch.hypot(right, down)
    assert distance.max() < 0.1 * side * 2**0.5 * 1.2 * 1.2
    assert right.std() > 1
    assert down.std() > 1
    assert right.mean().abs() < 0.5
    assert down.mean().abs() < 0.5


def test_a_strong_view_leaves_its_input_alone() -> None:
    images = smooth(6, 16) / 255
    before = images.clone()
    for view in STRONG_VIEWS.values():
        view(images, ViewsConfig(randaugment_operations=4), seeded(), ALONE)
        assert torch.equal(images, before)
    for name, operation in OPERATIONS.items():
        operation(images, torch.full((6,), 0.5))
        assert torch.equal(images, before), name


# ------------------------------------------------------------------------------------------------------------- masked


def test_masked_leaves_whole_patches_of_the_images_and_the_mean_colour_elsewhere() -> None:
    images = torch.rand(400, 3, 32, 32, generator=seeded(1))
    result = masked(images, ViewsConfig(), seeded())
    kept = (result == images).all(dim=1)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1).expand_as(images)
    assert torch.equal(result, torch.where(kept[:, None], images, mean))
    # 64 of 224 pixels is 0.286 of the side: 4 patches of 8 pixels along it.
    patches = kept.unflatten(2, (4, 8)).unflatten(1, (4, 8)).float().mean(dim=(2, 4))
    assert set(patches.unique().tolist()) == {0.0, 1.0}
    share = patches.mean().item()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / patches.numel()) ** 0.5
    assert len({tuple(image.flatten().tolist()) for image in patches}) > 350  # each image draws its own


def test_a_masked_patch_is_zero_after_normalisation() -> None:
    view = strong_view(noise(8, 32), ViewsConfig(strong="masked"), size=32, generator=seeded())
    assert ((view.abs() < 1e-6).all(dim=1)).float().mean() > 0.4
