"""What every entry of BACKBONES keeps to; a new backbone is tested here by being in the dict."""

from collections.abc import Callable

import pytest
import torch
from quick import slow_but
from torchvision import models as zoo

from scale_ray.models import BACKBONES, build_encoder

every_backbone = pytest.mark.parametrize("name", BACKBONES)


@every_backbone
def test_it_maps_small_images_to_a_feature_map(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, "none").eval()
    with torch.no_grad():
        feature_map = encoder(torch.randn(2, 3, 64, 32))
    assert feature_map.ndim == 4
    assert feature_map.shape[:2] == (2, BACKBONES[name].feature_dim)
    assert feature_map.shape[2] == 2 * feature_map.shape[3]
    assert feature_map.isfinite().all()
    assert feature_map.std() > 0


@every_backbone
def test_its_names_are_torchvisions_without_the_classifier(name: str) -> None:
    """So that ImageNet weights load by name, and so do any others of that architecture."""
    if BACKBONES[name].imagenet is None:
        assert name == "lenet"
        return
    with torch.device("meta"):  # names and shapes alone
        original = zoo.get_model(name, weights=None).state_dict()
        ours = build_encoder(name, "none").state_dict()
    kept = {key: value.shape for key, value in original.items() if key.split(".")[0] not in ("fc", "classifier")}
    assert {key: value.shape for key, value in ours.items()} == kept


@pytest.mark.parametrize("name", slow_but(["lenet"], ["lenet", "mobilenet_v2", "resnet18"]))
def test_it_compiles_as_a_whole(name: str) -> None:
    """Block by block it would reach torch's limit of recompilations, and stay uncompiled without an error."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    encoder = build_encoder(name, "none").eval()
    images = torch.randn(2, 3, 32, 32)
    expected = encoder(images)
    encoder.compile(backend=backend)
    assert torch.equal(encoder(images), expected)
    assert len(graphs) == 1


@pytest.mark.parametrize("name", ["lenet", "mobilenet_v2", "resnet18"])
def test_random_weights_are_a_function_of_torchs_seed(name: str) -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build_encoder(name, "none").state_dict()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_torchvisions_weights_are_named_by_what_they_are_for() -> None:
    """IMAGENET1K_V1 of the same architecture, whatever torchvision's default may become."""
    for name, entry in BACKBONES.items():
        if entry.imagenet is not None:
            assert entry.imagenet() is zoo.get_model_weights(name).IMAGENET1K_V1
