"""The teacher's average, and what its forward passes leave unchanged (docs/method.md, section 1)."""

import pytest
import torch
from torch import Tensor, nn

from scale_ray.config import ModelConfig
from scale_ray.models import BACKBONES, Network, Teacher, build_encoder

STEPS = 6


def student(batch_norm: str = "separate") -> Network:
    torch.manual_seed(0)
    config = ModelConfig(backbone="lenet", weights="none", hidden_dim=8, projection_dim=4, batch_norm=batch_norm)
    return Network(build_encoder("lenet", "none"), BACKBONES["lenet"].feature_dim, 3, config).double()


def images(seed: int) -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def train_a_step(network: Network, seed: int) -> None:
    """Move every parameter, running statistic and count of batches."""
    numbers = torch.Generator().manual_seed(seed)
    network(images(seed), project=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=numbers, dtype=torch.float64))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def test_it_starts_as_a_copy_of_the_whole_student() -> None:
    network = student()
    teacher = Teacher(network, 0.99)
    before = state(network)
    assert_equal(state(teacher.module), before)
    train_a_step(network, 1)  # a copy and no view
    assert_equal(state(teacher.module), before)


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.99])
def test_it_is_the_moving_average_of_parameters_and_buffers(momentum: float) -> None:
    """a = min(1 - 1/(t + 1), alpha) at update t = 0, 1, ...; so the first update copies."""
    network = student()
    teacher = Teacher(network, momentum)
    expected = state(network)
    for t in range(STEPS):
        train_a_step(network, t)
        teacher.update_parameters(network)
        keep = min(1 - 1 / (t + 1), momentum)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * value
            else:
                expected[name] = value.clone()
        found = state(teacher.module)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14, msg=lambda m, n=name: f"{n}: {m}")
    assert any("running_var" in name for name in expected)
    counts = [value.item() for name, value in expected.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert set(counts) == {STEPS}


def test_below_alpha_it_is_the_plain_mean_of_all_students() -> None:
    network = student()
    teacher = Teacher(network, 0.99)
    weights = []
    for t in range(STEPS):
        train_a_step(network, t)
        teacher.update_parameters(network)
        weights.append(network.classifier[0].weight.detach().clone())
    torch.testing.assert_close(teacher.module.classifier[0].weight, torch.stack(weights).mean(dim=0))


def test_an_update_leaves_the_student_alone() -> None:
    network = student()
    teacher = Teacher(network, 0.5)
    for t in range(3):
        train_a_step(network, t)
        before = state(network)
        teacher.update_parameters(network)
        assert_equal(state(network), before)


def test_labelling_uses_the_batchs_own_statistics_and_changes_nothing() -> None:
    network = student()
    train_a_step(network, 1)
    teacher = Teacher(network, 0.99)
    before = state(teacher)
    outputs = teacher(images(2), project=True)
    assert_equal(state(teacher), before)
    expected = network.train()(images(2), project=True)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outputs.features, expected.features)
    assert not torch.allclose(outputs.logits, network.eval()(images(2)).logits)


def test_labelling_switches_dropout_off() -> None:
    network = student()
    network.classifier.append(nn.Dropout(0.5))
    teacher = Teacher(network, 0.99)
    assert torch.equal(teacher(images(1)).logits, teacher(images(1)).logits)


def test_frozen_labelling_normalises_as_the_student_and_as_prediction_do() -> None:
    network = student("frozen")
    teacher = Teacher(network, 0.99)
    before = state(teacher)
    labelled = teacher(images(2)).logits
    assert torch.equal(labelled, network(images(2)).logits)
    teacher.eval()
    assert torch.equal(labelled, teacher.module.predict(images(2)))
    teacher.label_mode()
    assert torch.equal(labelled, teacher(images(2)).logits)
    assert_equal(state(teacher), before)


def test_prediction_uses_running_statistics_and_changes_nothing() -> None:
    network = student()
    train_a_step(network, 1)
    teacher = Teacher(network, 0.99)
    teacher.eval()
    before = state(teacher)
    together = teacher.module.predict(images(2))
    torch.testing.assert_close(together, network.eval().predict(images(2)), rtol=1e-12, atol=1e-12)
    alone = torch.cat([teacher.module.predict(image[None]) for image in images(2)])
    torch.testing.assert_close(together, alone)  # an image's prediction does not depend on its batch
    assert_equal(state(teacher), before)


def test_label_mode_comes_back_after_prediction() -> None:
    teacher = Teacher(student(), 0.99)
    labelling = teacher(images(2)).logits
    teacher.eval()
    assert not torch.allclose(teacher(images(2)).logits, labelling)
    teacher.label_mode()
    assert torch.equal(teacher(images(2)).logits, labelling)


def test_it_does_not_change_how_the_student_trains() -> None:
    network = student()
    Teacher(network, 0.99)
    before = state(network)
    network(images(1))
    after = state(network)
    assert all(parameter.requires_grad for parameter in network.parameters())
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.rsplit(".", 1)[1] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


def test_no_gradient_reaches_it() -> None:
    teacher = Teacher(student(), 0.99)
    outputs = teacher(images(1), project=True)
    assert not outputs.logits.requires_grad
    assert not outputs.features.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_it_continues_from_its_state_dict() -> None:
    """The number of updates is part of the state: it sets the next weight."""
    network = student()
    teacher = Teacher(network, 0.99)
    for t in range(3):
        train_a_step(network, t)
        teacher.update_parameters(network)
    resumed = Teacher(student(), 0.99)
    resumed.load_state_dict(teacher.state_dict())
    train_a_step(network, 3)
    teacher.update_parameters(network)
    resumed.update_parameters(network)
    assert_equal(state(resumed), state(teacher))
