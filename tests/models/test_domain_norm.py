"""BatchNorm by domain: trains as BatchNorm does, predicts with each domain's own statistics."""

import pytest
import torch
from torch import Tensor, nn

from scale_ray.config import ModelConfig
from scale_ray.models import BACKBONES, FeatureNetwork, Network, Teacher, build_encoder
from scale_ray.models.domain_norm import DomainBatchNorm, split_by_domain

SIZES = {"hidden_dim": 8, "projection_dim": 4}


def network(batch_norm: str) -> Network:
    torch.manual_seed(0)
    config = ModelConfig(backbone="lenet", weights="none", batch_norm=batch_norm, **SIZES)
    return Network(build_encoder("lenet", "none"), BACKBONES["lenet"].feature_dim, 3, config)


def feature_network() -> FeatureNetwork:
    config = ModelConfig(encoder="frozen", batch_norm="domain", bottleneck_dim=6, **SIZES)
    return FeatureNetwork(5, 3, config)


def images(seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) + shift


def trained(model: Network, steps: int = 4) -> Network:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        of_source, of_target = model.forward_domains(images(step), images(100 + step, shift=2.0), project=True)
        optimiser.zero_grad()
        (of_source.logits.square().mean() + of_target.features[:, 0].mean() + of_target.logits[:, 0].mean()).backward()
        optimiser.step()
    return model


def test_it_trains_what_separate_trains_bit_for_bit() -> None:
    separate, by_domain = trained(network("separate")), trained(network("domain"))
    parameters = dict(by_domain.named_parameters())
    assert parameters.keys() == dict(separate.named_parameters()).keys()
    assert all(torch.equal(value, parameters[name]) for name, value in separate.named_parameters())
    more = by_domain.state_dict().keys() - separate.state_dict().keys()
    assert {name.rpartition(".")[2] for name in more} == {"target_mean", "target_var", "target_batches"}
    assert separate.state_dict().keys() <= by_domain.state_dict().keys()


def test_it_predicts_each_domain_as_a_network_that_saw_no_other_would() -> None:
    layer = DomainBatchNorm(nn.BatchNorm1d(3))
    alone = {"source": nn.BatchNorm1d(3), "target": nn.BatchNorm1d(3)}
    for step in range(5):
        for domain, shift in (("source", 0.0), ("target", 7.0)):
            rows = torch.randn(16, 3, generator=torch.Generator().manual_seed(step)) + shift
            layer.on_target = domain == "target"
            if domain == "target" and step == 0:
                alone["target"].load_state_dict(alone["source"].state_dict())  # where the target starts
            assert torch.equal(layer(rows), alone[domain](rows))
    layer.eval()
    rows = torch.randn(4, 3)
    for domain, expected in alone.items():
        layer.on_target = domain == "target"
        assert torch.equal(layer(rows), expected.eval()(rows))
    assert int(layer.target_batches) == int(layer.num_batches_tracked) == 5


def test_until_the_target_is_seen_the_source_serves_both() -> None:
    layer = DomainBatchNorm(nn.BatchNorm2d(3))
    layer(images(0, shift=3.0))
    layer.eval()
    of_source = layer(images(1))
    layer.on_target = True
    assert torch.equal(layer(images(1)), of_source)
    layer.train()(images(2))
    assert not torch.equal(layer.eval()(images(1)), of_source)
    layer.on_target = False
    before = {name: value.clone() for name, value in layer.named_buffers() if name.startswith("target")}
    layer.train()(images(3))
    assert all(torch.equal(layer.get_buffer(name), value) for name, value in before.items())


def test_a_target_that_comes_late_starts_from_the_source_for_student_and_teacher() -> None:
    student = network("domain")
    teacher = Teacher(student, momentum=0.5)
    for step in range(3):
        student(images(step, shift=4.0), project=False)
        teacher.update_parameters(student)
    for module in (student, teacher.module):
        kept = dict(module.named_buffers())
        for name in kept:
            if name.endswith(("running_mean", "running_var")):
                assert torch.equal(kept[name.replace("running", "target")], kept[name])
    layer = DomainBatchNorm(nn.BatchNorm2d(3))
    layer(images(0, shift=4.0))
    start, batch = layer.running_mean.clone(), images(1)
    layer.on_target = True
    layer(batch)
    torch.testing.assert_close(layer.target_mean, 0.9 * start + 0.1 * batch.mean(dim=(0, 2, 3)))


def test_it_takes_over_what_the_layer_held() -> None:
    layer = nn.BatchNorm2d(3, eps=1e-3, momentum=0.3)
    layer(images(0))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    whole = nn.Sequential(nn.Sequential(layer))
    expected = whole.eval()(images(1))
    split_by_domain(whole)
    assert isinstance(whole[0][0], DomainBatchNorm)
    assert (whole[0][0].eps, whole[0][0].momentum) == (1e-3, 0.3)
    assert torch.equal(whole.eval()(images(1)), expected)


@pytest.mark.parametrize("model", [network("domain"), feature_network()], ids=["images", "features"])
def test_a_prediction_is_of_the_domain_that_is_named(model: Network) -> None:
    def given(shift: float) -> Tensor:
        return images(9, shift) if model.feature_dim == 96 else images(9, shift)[:, :, 0, 0].repeat(1, 2)[:, :5]

    for _ in range(3):
        model.forward_domains(given(0.0), given(2.0))
    model.eval()
    source, target = (model.predict_with_features(given(1.0), domain)[0] for domain in ("source", "target"))
    assert not torch.allclose(source, target)
    assert torch.equal(model.predict(given(1.0)), target)  # a model is used on the target
    assert not any(layer.on_target for layer in model.modules() if isinstance(layer, DomainBatchNorm))


def test_the_teacher_averages_both_sets_and_labels_with_the_batchs_own() -> None:
    student = trained(network("domain"), steps=1)
    teacher = Teacher(student, momentum=0.5)
    start = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    labels = teacher(images(3, shift=5.0)).logits
    assert torch.equal(teacher(images(3, shift=5.0)).logits, labels)
    assert all(torch.equal(value, start[name]) for name, value in teacher.module.state_dict().items())
    teacher.update_parameters(student)  # the first update copies
    trained(student, steps=1)
    teacher.update_parameters(student)
    name = next(name for name in start if name.endswith("target_mean"))
    torch.testing.assert_close(teacher.module.state_dict()[name], (start[name] + student.state_dict()[name]) / 2)
