"""Splits and sampling: stratified, balanced, and a function of the step alone."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scale_ray.config import TrialConfig
from scale_ray.data.batches import Batches, LabelledImages, UnlabelledImages, balanced_weights, hold_out
from scale_ray.data.decoded import Domain
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.training.seeding import generator
from scale_ray.workers import ALONE, Workers

CPU = torch.device("cpu")


def domain(labels: list[int], classes: int) -> Domain:
    images = np.zeros((len(labels), 3, 16, 16), np.uint8)
    images[:] = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]  # an image's pixels say its place
    return Domain("d", images, np.array(labels), tuple(map(str, range(classes))), (), "")


def batches(config: TrialConfig, labels: list[int], target_images: int = 20, workers: Workers = ALONE) -> Batches:
    source = domain(labels, 3)
    target = UnlabelledImages(domain([0] * target_images, 3).images)
    everything = LabelledImages(source.images, np.arange(len(labels)), source.labels)
    return Batches(config, everything, target, 3, partial(generator, config.seed), CPU, workers)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.05, 0.9))
def test_hold_out_is_a_stratified_partition(labels: list[int], share: float) -> None:
    whole = domain(labels, 5)
    training, validation = hold_out(whole, share, generator(0, "hold_out", 0))
    assert sorted([*training.indices, *validation.indices]) == list(range(len(labels)))
    assert all(part.labels.tolist() == whole.labels[part.indices].tolist() for part in (training, validation))
    for label in set(labels):
        total, held = labels.count(label), int((validation.labels == label).sum())
        assert total - held >= 1
        assert held == (0 if total == 1 else min(max(1, round(share * total)), total - 1))


def test_balanced_weights_hand_case() -> None:
    # frequencies 3/4 and 1/4; gamma 0.5: 1/sqrt(0.75), 1/sqrt(0.25) = 2
    weights = balanced_weights(torch.tensor([0, 0, 0, 1]), 3, 0.5)
    assert weights.tolist() == pytest.approx([0.75**-0.5] * 3 + [2.0])


def test_unknown_labels_get_the_mean_weight() -> None:
    weights = balanced_weights(torch.tensor([0, 0, 0, 1, -1]), 3, 0.5)
    assert weights[4] == pytest.approx((3 * 0.75**-0.5 + 2) / 4)
    assert balanced_weights(torch.tensor([-1, -1]), 3, 0.5).tolist() == [1, 1]


def test_gamma_1_draws_classes_alike(tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"data.gamma": 1.0, "optim.batch_size": 100})
    drawn = torch.cat([batches(config, [0] * 50 + [1] * 10 + [2] * 2).source(step).labels for step in range(30)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.04)  # 4 standard deviations of 3,000 draws


def test_labels_belong_to_their_images(tiny_config: TrialConfig) -> None:
    labels = [0, 1, 2, 2, 1, 0, 0, 1]
    made = batches(tiny_config.replace({"views.flip": False, "views.crop_scale": (1, 1)}), labels)
    batch = made.source(0)
    places = torch.round((batch.images[:, 0, 0, 0] * 0.229 + 0.485) * 255).long()  # ImageNet normalisation undone
    assert batch.labels.tolist() == [labels[place] for place in places]


def test_without_balance_every_epoch_shows_every_image_once(tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"data.class_balance": "off", "optim.batch_size": 8})
    made = batches(config, [0, 1, 2] * 4, target_images=12)
    drawn = torch.cat([made.target(step).indices for step in range(6)])  # 48 = 4 epochs of 12, batches cross them
    for epoch in drawn.split(12):
        assert sorted(epoch.tolist()) == list(range(12))
    assert drawn[:12].tolist() != drawn[12:24].tolist()


@pytest.mark.parametrize("balance", ["off", "source", "both"])
def test_a_batch_is_a_function_of_the_step(tiny_config: TrialConfig, balance: str) -> None:
    config = tiny_config.replace({"data.class_balance": balance})
    labels = [0, 1, 2] * 7
    forwards, alone = batches(config, labels), batches(config, labels)
    for step in range(5):
        source, target = forwards.source(step), forwards.target(step)
    again_source, again_target = alone.source(4), alone.target(4)
    assert torch.equal(source.images, again_source.images)
    assert torch.equal(source.labels, again_source.labels)
    assert torch.equal(target.weak, again_target.weak)
    assert torch.equal(target.strong, again_target.strong)
    other_seed = batches(config.replace({"seed": 1}), labels)
    assert not torch.equal(source.images, other_seed.source(4).images)


def test_source_views_alternate_between_weak_and_strong(tiny_config: TrialConfig) -> None:
    labels = [0, 1, 2] * 7
    weak = batches(tiny_config, labels)
    by_turns = batches(tiny_config.replace({"views.source": "alternating"}), labels)
    for step in range(4):
        expected, found = weak.source(step), by_turns.source(step)
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.images, expected.images) == (step % 2 == 0)
        assert torch.equal(by_turns.target(step).strong, weak.target(step).strong)


@pytest.mark.parametrize("strong", STRONG_VIEWS)
@pytest.mark.parametrize("balance", ["off", "source", "both"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_workers_parts_are_one_workers_batch_bit_for_bit(
    tiny_config: TrialConfig, size: int, balance: str, strong: str
) -> None:
    config = tiny_config.replace({"data.class_balance": balance, "views.strong": strong})
    labels = [0, 1, 2] * 7
    one, *workers = [batches(config, labels, workers=worker) for worker in (ALONE, *everyone(size))]
    for step in range(6):  # epochs of 20 and 21 images end within the steps' batches of 8
        source, target = one.source(step), one.target(step)
        parts = [(made.source(step), made.target(step)) for made in workers]
        assert torch.equal(torch.cat([part.images for part, _ in parts]), source.images)
        assert torch.equal(torch.cat([part.weak for _, part in parts]), target.weak)
        assert torch.equal(torch.cat([part.strong for _, part in parts]), target.strong)
        for source_part, target_part in parts:
            assert len(source_part.images) == len(target_part.weak) == config.optim.batch_size // size
            assert torch.equal(source_part.labels, source.labels)
            assert torch.equal(target_part.indices, target.indices)
        for made in (one, *workers):
            made.observe(target.indices, target.indices % 3)


def everyone(size: int) -> list[Workers]:
    return [Workers(rank, size) for rank in range(size)]


def test_observed_pseudo_labels_make_rare_classes_frequent_and_are_the_state(tiny_config: TrialConfig) -> None:
    config = tiny_config.replace({"data.class_balance": "both", "data.gamma": 1.0, "optim.batch_size": 200})
    made, restored = batches(config, [0, 1, 2]), batches(config, [0, 1, 2])
    made.observe(torch.arange(20), torch.tensor([0] * 18 + [1] * 2))
    share = (made.target(0).indices >= 18).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.15)
    restored.load_state(made.state())
    assert torch.equal(made.target(3).indices, restored.target(3).indices)
    assert batches(config.replace({"data.class_balance": "source"}), [0, 1, 2]).state() == {}


def test_steps_per_epoch_is_rounded_up(tiny_config: TrialConfig) -> None:
    assert batches(tiny_config.replace({"optim.batch_size": 8}), [0] * 17).steps_per_epoch == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::UserWarning")  # the debug mode says that it is a prototype
def test_a_gpu_gets_the_same_images_and_labels_and_is_never_waited_for(tiny_config: TrialConfig) -> None:
    plain = tiny_config.replace({"views.flip": False, "views.crop_scale": (1, 1), "views.randaugment_operations": 0})
    on_host, on_device = batches(plain, [0, 1, 2] * 4), batches(plain, [0, 1, 2] * 4)
    on_device._device = torch.device("cuda")
    wanted = [(on_host.source(step), on_host.target(step)) for step in range(20)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = [(on_device.source(step), on_device.target(step)) for step in range(20)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (source, target), (our_source, our_target) in zip(wanted, made, strict=True):
        assert torch.equal(our_source.labels.cpu(), source.labels)
        for ours, theirs in ((our_source.images, source.images), (our_target.weak, target.weak)):
            torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=0)
