import pytest
import torch
from torch import Tensor, nn

from scale_ray.config import ModelConfig
from scale_ray.models import BACKBONES, Network, build_encoder
from scale_ray.models.network import FeatureNetwork, image_level, per_location

IMAGES, CLASSES, LOCATIONS = 3, 5, 16  # lenet maps 32 x 32 pixels to 4 x 4 locations

LEVELS = pytest.mark.parametrize("level", ["pooled", "spatial"])


def network(level: str, *, batch_norm: str = "separate", precision: str = "float32") -> Network:
    torch.manual_seed(0)
    sizes = {"hidden_dim": 12, "projection_dim": 6, "contrast_level": level}
    config = ModelConfig(backbone="lenet", weights="none", batch_norm=batch_norm, **sizes)
    return Network(build_encoder("lenet", "none"), BACKBONES["lenet"].feature_dim, CLASSES, config, precision)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def rows(level: str) -> int:
    return IMAGES * (LOCATIONS if level == "spatial" else 1)


@LEVELS
def test_shapes(level: str, images: Tensor) -> None:
    model = network(level)
    outputs = model(images, project=True)
    assert outputs.logits.shape == (rows(level), CLASSES)
    assert outputs.features.shape == (rows(level), 6)
    assert model.predict(images).shape == (IMAGES, CLASSES)


def test_a_linear_head_is_one_linear_on_what_the_encoder_gives(images: Tensor) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_dim": 12, "projection_dim": 6, "bottleneck_dim": 8}
    rows = torch.randn(IMAGES, 10)
    config = ModelConfig(encoder="frozen", backbone="resnet18", head="linear", **sizes)
    frozen = FeatureNetwork(10, CLASSES, config)
    last = frozen.classifier[-1]
    expected = rows @ last.weight.T + last.bias
    outputs = frozen(rows, hidden=True)
    torch.testing.assert_close(outputs.logits, expected)
    torch.testing.assert_close(outputs.hidden, rows)
    logits, features = frozen.predict_with_features(rows)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(features, rows)
    assert frozen.feature_dim == 10
    trained = Network(
        build_encoder("lenet", "none"),
        BACKBONES["lenet"].feature_dim,
        CLASSES,
        ModelConfig(backbone="lenet", weights="none", head="linear"),
    )
    assert trained(images).logits.shape == (IMAGES, CLASSES)
    assert len(trained.classifier) == 1


@LEVELS
def test_features_have_length_one(level: str, images: Tensor) -> None:
    lengths = network(level)(images, project=True).features.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(rows(level)), rtol=1e-6, atol=0)


def test_bf16_rounds_what_is_inside_and_gives_float32_with_features_of_length_one(images: Tensor) -> None:
    model, exact = network("pooled", precision="bf16"), network("pooled")
    inside: dict[str, torch.dtype] = {}
    for name in ("encoder", "classifier.2", "classifier.3", "projector"):
        model.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: inside.update({name: output.dtype})
        )
    outputs, expected = model(images, project=True), exact(images, project=True)
    assert inside == {
        "encoder": torch.bfloat16,
        "classifier.2": torch.bfloat16,
        "classifier.3": torch.float32,
        "projector": torch.bfloat16,
    }
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert outputs.features.dtype == outputs.logits.dtype == torch.float32
    torch.testing.assert_close(outputs.features.norm(dim=1), torch.ones(IMAGES), rtol=1e-6, atol=0)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=0, atol=0.2)
    assert not torch.equal(outputs.logits, expected.logits)


def test_under_bf16_logits_that_differ_little_are_not_rounded_to_one(images: Tensor) -> None:
    """1 and 1 + 2^-10 are one number in bfloat16, which has 8 bits."""
    model = network("pooled", precision="bf16").eval()
    last = model.classifier[-1]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([1.0, 1 + 2**-10, 0.0, 0.0, 0.0]))
    for logits in (model.predict(images), model(images).logits, model(images, hidden=True).logits):
        assert (logits[:, 1] > logits[:, 0]).all()


def test_predictions_have_the_precision_of_training(images: Tensor) -> None:
    model, exact = network("pooled", precision="bf16").eval(), network("pooled").eval()
    assert torch.equal(model.predict(images), model(images).logits)
    assert not torch.equal(model.predict(images), exact.predict(images))


def test_a_network_in_float64_stays_in_it(images: Tensor) -> None:
    outputs = network("pooled").double()(images.double(), project=True)
    assert outputs.logits.dtype == outputs.features.dtype == torch.float64
    torch.testing.assert_close(outputs.features.norm(dim=1), torch.ones(IMAGES).double(), rtol=1e-14, atol=0)


@LEVELS
def test_frozen_batch_norm_normalises_by_what_it_started_with_and_goes_on_learning(level: str, images: Tensor) -> None:
    model = network(level, batch_norm="frozen")
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.copy_(buffer + torch.rand(buffer.shape) / 10)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.eval()
    expected = model(images, project=True)
    model.train()
    assert model.training
    assert model.classifier.training
    outputs = model(images, project=True)
    assert torch.equal(outputs.logits, expected.logits)  # in training mode too, and image by image:
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(outputs.logits, alone)
    assert before
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    (outputs.logits.square().sum() + outputs.features[:, 0].sum()).backward()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert len(norms) == 7  # five of the encoder, one of each head
    assert all(layer.weight.grad.abs().sum() > 0 for layer in norms)
    assert model.running_statistics() == []


def test_running_statistics_are_those_of_every_batch_norm() -> None:
    statistics = network("pooled").running_statistics()
    assert len(statistics) == 2 * 7
    assert all(tensor.is_floating_point() for tensor in statistics)


@LEVELS
def test_the_heads_are_those_of_the_method(level: str) -> None:
    """docs/method.md, section 1: Linear, BatchNorm, ReLU, Linear."""
    model = network(level)
    for head, outputs in ((model.classifier, CLASSES), (model.projector, 6)):
        assert isinstance(head, nn.Sequential)
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert (head[0].in_features, head[0].out_features, head[3].out_features) == (96, 12, outputs)


def test_the_hidden_layer_is_what_the_last_layer_of_the_classifier_sees(images: Tensor) -> None:
    model = network("pooled").eval()
    plain, found = model(images), model(images, hidden=True)
    assert plain.hidden is None
    assert found.hidden is not None
    assert torch.equal(found.logits, plain.logits)
    assert torch.equal(model.classifier[-1](found.hidden), plain.logits)
    assert (found.hidden >= 0).all()


@pytest.mark.parametrize("mode", ["separate", "joint", "frozen"])
def test_both_domains_in_one_forward_or_in_two(mode: str, images: Tensor) -> None:
    """In evaluation mode nothing depends on the other images, so that the two ways agree."""
    model = network("pooled", batch_norm=mode).eval()
    source, target = images, images.flip(0) + 1
    of_source, of_target = model.forward_domains(source, target, project=True, hidden=True)
    for found, domain in ((of_source, source), (of_target, target)):
        for part, expected in zip(found, model(domain, project=True, hidden=True), strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    assert model.forward_domains(source, target)[0].features is None


def test_row_i_times_l_plus_l_is_location_l_of_image_i() -> None:
    """An encoder that passes 3-channel images on, heads that pass rows on: the rows are the pixels."""
    model = Network(nn.Identity(), 3, CLASSES, ModelConfig(contrast_level="spatial")).eval()
    model.classifier = nn.Sequential(nn.Identity())
    image, row, column = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(5), indexing="ij")
    maps = torch.stack([image, row, column], dim=1).float()  # the channels of a pixel say where it is
    logits = model(maps).logits
    expected = [[i, h, w] for i in range(2) for h in range(4) for w in range(5)]
    assert logits.tolist() == expected


def test_a_spatial_head_is_a_1x1_convolution(images: Tensor) -> None:
    model = network("spatial").eval()
    feature_map = model.encoder(images)
    first, norm, relu, last = model.classifier
    hidden = nn.functional.conv2d(feature_map, first.weight[:, :, None, None], first.bias)
    hidden = nn.functional.batch_norm(
        hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )
    logits = nn.functional.conv2d(relu(hidden), last.weight[:, :, None, None], last.bias)
    expected = logits.permute(0, 2, 3, 1).reshape(-1, CLASSES)
    torch.testing.assert_close(model(images).logits, expected)


def test_spatial_predictions_are_the_mean_over_locations(images: Tensor) -> None:
    model = network("spatial").eval()
    logits = model(images).logits
    for i in range(IMAGES):
        expected = logits[i * LOCATIONS : (i + 1) * LOCATIONS].mean(dim=0)
        torch.testing.assert_close(model.predict(images)[i], expected)


@LEVELS
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_predictions_come_with_the_pooled_features_of_the_encoder(level: str, precision: str, images: Tensor) -> None:
    model = network(level, precision=precision).eval()
    logits, features = model.predict_with_features(images)
    assert torch.equal(logits, model.predict(images))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        feature_map = model.encoder(images)
    expected = torch.stack([feature_map[i].float().flatten(1).mean(dim=1) for i in range(IMAGES)])
    assert (logits.dtype, features.dtype, features.shape[1]) == (torch.float32, torch.float32, model.feature_dim)
    torch.testing.assert_close(features, expected, rtol=1e-5 if precision == "float32" else 1e-2, atol=1e-6)


def test_pooled_predictions_are_the_logits_of_the_mean_feature(images: Tensor) -> None:
    model = network("pooled").eval()
    assert torch.equal(model.predict(images), model(images).logits)
    pooled = model.encoder(images).flatten(2).mean(dim=2)
    torch.testing.assert_close(model.predict(images), model.classifier(pooled))


def test_without_project_the_projection_head_does_not_run(images: Tensor) -> None:
    model = network("pooled")
    calls = []
    assert model.projector is not None
    model.projector.register_forward_hook(lambda *_: calls.append(1))
    assert model(images).features is None
    model.predict(images)
    assert not calls
    assert model(images, project=True).features is not None
    assert len(calls) == 1


@LEVELS
def test_a_state_for_prediction_predicts_the_same_without_the_projection_head(level: str, images: Tensor) -> None:
    trained = network(level)
    trained(images)  # moves the running statistics, which are part of the state
    state = trained.eval().state_for_prediction()
    assert state
    assert not any(name.startswith("projector") for name in state)
    other = network(level)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_for_prediction(state)
    assert other.projector is None
    assert torch.equal(other.eval().predict(images), trained.predict(images))
    assert {name for name, _ in other.named_parameters()} < {name for name, _ in trained.named_parameters()}


def test_a_network_for_prediction_does_not_project(images: Tensor) -> None:
    model = network("pooled")
    model.load_for_prediction(model.state_for_prediction())
    with pytest.raises(AssertionError, match="loaded for prediction"):
        model(images, project=True)


def test_per_location_and_image_level_undo_each_other() -> None:
    values = torch.arange(6.0).reshape(3, 2)
    repeated = per_location(values, 4)
    assert repeated[:, 0].tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4]
    assert torch.equal(image_level(repeated, 3), values)
    assert per_location(values, 1) is values
