"""Backbones of timm: one conformity suite over ten families with random weights, then names, sizes and weights.

Nothing here reads the hub. The smallest member of every family is taken, at the smallest size that it can take.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.views import IMAGENET_MEAN, IMAGENET_STD
from scale_ray.models import Network, Teacher, build_encoder
from scale_ray.models.backbones import check_backbone, feature_dim, synchronise_batch_norm
from scale_ray.models.network import batch_norms, pooled
from scale_ray.models.timm_encoders import TimmEncoder, facts

# Name -> side in pixels, D, and whether its features are the mean of a map.
FAMILIES: dict[str, tuple[int, int, bool]] = {
    "test_vit.r160_in1k": (32, 64, False),
    "vit_small_patch14_reg4_dinov2.lvd142m": (28, 384, False),
    "deit_tiny_distilled_patch16_224.fb_in1k": (32, 192, False),
    "swin_tiny_patch4_window7_224.ms_in1k": (32, 768, False),
    "test_convnext.r160_in1k": (32, 64, False),
    "test_resnet.r160_in1k": (32, 96, True),
    "tf_efficientnet_lite0.in1k": (32, 1280, True),
    "mobilenetv3_small_050.lamb_in1k": (32, 1024, False),
    "regnetx_002.pycls_in1k": (32, 368, True),
    "maxvit_rmlp_pico_rw_256.sw_in1k": (32, 256, True),
    "mixer_s32_224.untrained": (32, 512, False),
}


def config_of(name: str, **changes: Any) -> TrialConfig:
    plain = {"model.weights": "none", "model.hidden_dim": 16, "model.projection_dim": 8, "data.resize": 256}
    return TrialConfig().replace(
        plain | {"model.backbone": f"timm:{name}", "data.image_size": FAMILIES[name][0]} | changes
    )


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def built(name: str) -> Iterator[TimmEncoder]:
    """An encoder that no test changes."""
    torch.manual_seed(0)
    encoder = build_encoder(f"timm:{name}", "none", FAMILIES[name][0])
    before = copy.deepcopy(encoder.state_dict())
    yield encoder.eval()
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.fixture(scope="module")
def pixels(name: str) -> Tensor:
    """Four images in [0, 1]."""
    side = FAMILIES[name][0]
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(1))


def views_of(pixels: Tensor) -> Tensor:
    """As every view normalises."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


def network_on(encoder: TimmEncoder, name: str, **changes: Any) -> Network:
    torch.manual_seed(2)
    return Network(copy.deepcopy(encoder), FAMILIES[name][1], 3, config_of(name, **changes).model)


def test_its_features_are_timms_on_images_that_are_normalised_as_timm_says(
    name: str, built: TimmEncoder, pixels: Tensor
) -> None:
    wanted = timm.data.resolve_model_data_config(built.model)
    mean, std = (torch.tensor(wanted[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = built.model((pixels - mean) / std)  # timm's whole model, whose classifier is the identity
        found = built(views_of(pixels))
    assert found.ndim == (4 if FAMILIES[name][2] else 2)
    assert pooled(found).shape == (4, FAMILIES[name][1]) == (4, feature_dim(f"timm:{name}", FAMILIES[name][0]))
    torch.testing.assert_close(pooled(found), expected, rtol=1e-3, atol=1e-4)
    assert pooled(found).std() > 0


def test_an_evaluation_draws_nothing(built: TimmEncoder, pixels: Tensor) -> None:
    with torch.no_grad():
        torch.manual_seed(3)
        first = built(views_of(pixels))
        torch.manual_seed(4)
        assert torch.equal(built(views_of(pixels)), first)


def test_a_step_trains_every_parameter(name: str, built: TimmEncoder, pixels: Tensor) -> None:
    network = network_on(built, name)
    before = copy.deepcopy(network.state_dict())
    outputs = network(views_of(pixels), project=True)
    loss = outputs.logits.square().mean() + outputs.features[:, 0].mean()
    loss.backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    first = next(key for key, _ in network.named_parameters() if key.endswith("weight"))
    changed = [key for key, parameter in network.named_parameters() if not torch.equal(parameter, before[key])]
    assert first in changed
    assert len(changed) > len(list(network.parameters())) / 4  # some begin with a scale of zero


def test_its_state_makes_the_same_encoder(
    name: str, built: TimmEncoder, pixels: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From the file of a student, of which it leaves out the heads; another seed gives other random weights."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(network_on(built, name).state_dict(), path)
    torch.manual_seed(5)
    loaded = build_encoder(f"timm:{name}", str(path), FAMILIES[name][0]).eval()
    assert loaded.state_dict().keys() == built.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in built.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded(views_of(pixels)), built(views_of(pixels)))


def test_layers_hold_every_parameter_once_and_in_order(built: TimmEncoder) -> None:
    layers = built.layers()
    assert layers.keys() == dict(built.named_parameters()).keys()
    assert set(layers.values()) == set(range(max(layers.values()) + 1))
    assert max(layers.values()) >= 2
    names = list(layers)
    assert layers[names[0]] == 0
    blocks = [layers[key] for key in names if "blocks." in key or "layers." in key or "stages." in key]
    assert blocks == sorted(blocks)


def test_another_kind_of_batch_norm_computes_the_same(name: str, built: TimmEncoder, pixels: Tensor) -> None:
    """timm's BatchNorm may hold the activation: DomainBatchNorm and SyncBatchNorm must keep it."""
    separate, domain = (network_on(built, name, **{"model.batch_norm": mode}) for mode in ("separate", "domain"))
    for network in (separate, domain):
        network.zero_grad()
        torch.manual_seed(6)
        for part in network.forward_domains(views_of(pixels), views_of(pixels.flip(3))):
            part.logits.square().mean().backward()
    for (key, one), (_, other) in zip(separate.named_parameters(), domain.named_parameters(), strict=True):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad), key
    plain, before = (network_on(built, name, **{"model.batch_norm": "joint"}).eval() for _ in range(2))
    synchronised = synchronise_batch_norm(before).eval()
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in batch_norms(synchronised))
    with torch.no_grad():
        assert torch.equal(synchronised.predict(views_of(pixels)), plain.predict(views_of(pixels)))


def test_a_teacher_of_it_labels_without_a_change_of_itself(name: str, built: TimmEncoder, pixels: Tensor) -> None:
    teacher = Teacher(network_on(built, name), momentum=0.9)
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        first = teacher(views_of(pixels)).logits
        assert torch.equal(teacher(views_of(pixels)).logits, first)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_locations_have_features_where_timm_averages_a_map(name: str) -> None:
    side, width, is_map = FAMILIES[name]
    assert facts(f"timm:{name}", side).feature_dim == width
    spatial = config_of(name, **{"model.contrast_level": "spatial"}).model
    if is_map:
        check_backbone(spatial, side)
    else:
        with pytest.raises(ConfigError, match=r"model\.contrast_level is 'spatial', but 'timm:.*: set it to 'pooled'"):
            check_backbone(spatial, side)


def test_bfloat16_and_channels_last_change_little(name: str, built: TimmEncoder, pixels: Tensor) -> None:
    exact, network = (network_on(built, name).eval() for _ in range(2))
    network.to(memory_format=torch.channels_last).bf16 = True
    with torch.no_grad():
        found, expected = (each(views_of(pixels)).logits for each in (network, exact))
    assert found.dtype == torch.float32
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.95
