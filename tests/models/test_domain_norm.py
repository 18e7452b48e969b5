"""BatchNorm by domain: trains as BatchNorm does, predicts with each domain's own statistics."""

import pytest
import torch
from torch import Tensor, nn

from scale_ray.config import ModelConfig
from scale_ray.models import BACKBONES, FeatureNetwork, Network, Teacher, build_encoder
from scale_ray.models.domain_norm import (
    DomainBatchNorm,
    split_by_domain,
    whole_target_statistics,
    without_target_statistics,
)

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


def test_the_targets_statistics_are_those_of_images_like_the_predicted_ones() -> None:
    """Beside strong views, weak ones leave their statistics, and what is trained is the same bit for bit."""
    alone, beside, weak_alone = (network("domain") for _ in range(3))
    source, strong, weak = images(1), images(2, shift=4.0), images(3, shift=2.0)
    expected = alone.forward_domains(source, strong, project=True)
    found = beside.forward_domains(source, strong, like_predicted=weak, project=True)
    weak_alone.forward_domains(source, weak)
    for of_strong, of_both in zip(expected, found, strict=True):
        assert torch.equal(of_strong.logits, of_both.logits)
        assert torch.equal(of_strong.features, of_both.features)
    state, wanted = beside.state_for_prediction(), weak_alone.state_for_prediction()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert not torch.equal(beside.classifier[1].target_mean, alone.classifier[1].target_mean)
    beside.forward_domains(source, strong, project=True)[1].logits.sum().backward()  # statistics are counted again
    assert all(layer.track_running_stats for layer in beside.modules() if isinstance(layer, DomainBatchNorm))


def test_other_modes_leave_such_images_alone() -> None:
    for mode in ("separate", "joint", "frozen"):
        with_them, without = network(mode), network(mode)
        with_them.forward_domains(images(1), images(2), like_predicted=images(3))
        without.forward_domains(images(1), images(2))
        state = without.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in with_them.state_dict().items())


def test_statistics_of_the_whole_target_by_hand() -> None:
    layer = DomainBatchNorm(nn.BatchNorm1d(1, affine=False, momentum=0.25))
    whole = nn.Sequential(layer).eval()
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0], [8.0]])]
    before = {name: value.clone() for name, value in whole.state_dict().items()}

    def predict(batch: Tensor) -> int:
        layer.on_target = True
        whole(batch)
        layer.on_target = False
        return len(batch)

    with whole_target_statistics(whole, [lambda batch=batch: predict(batch) for batch in batches], lambda part: part):
        # Means 1 and 6, unbiased variances 2 and 4: (2 x 1 + 3 x 6) / 5 = 4, (2 x (2 + 1) + 3 x (4 + 36)) / 5 = 25.2.
        torch.testing.assert_close(layer.target_mean, torch.tensor([4.0]))
        torch.testing.assert_close(layer.target_var, torch.tensor([25.2 - 16]))
        assert not layer.training
    assert layer.momentum == 0.25
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_a_teacher_too_gets_statistics_of_the_whole_target() -> None:
    student = trained(network("domain"), steps=1)
    teacher = Teacher(student, momentum=0.5)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    modes = [(layer.training, layer.track_running_stats) for layer in teacher.modules() if hasattr(layer, "on_target")]

    def predict() -> int:
        teacher.module.predict_with_features(images(5, shift=6.0), "target")
        return 8

    teacher.module.eval()
    with torch.no_grad(), whole_target_statistics(teacher.module, [predict], lambda part: part):
        assert not torch.equal(teacher.module.classifier[1].target_mean, student.classifier[1].target_mean)
    teacher.label_mode()
    after = [(layer.training, layer.track_running_stats) for layer in teacher.modules() if hasattr(layer, "on_target")]
    assert after == modes
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_state_becomes_that_of_a_network_without_domains() -> None:
    state = trained(network("domain"), steps=1).state_dict()
    kept = without_target_statistics(state)
    assert kept.keys() == network("separate").state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    other = {"layer.target_mean": torch.zeros(1)}  # of somebody else's layer
    assert without_target_statistics(other) == other
