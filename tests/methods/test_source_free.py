"""What the source-free methods promise: no source image after the switch, and what each keeps still or follows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from opened import open_data
from tiny_steps import BATCH, CLASSES, build, source_batch, survey_before, take_step, target_batch

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import Batches
from scale_ray.methods import METHODS
from scale_ray.methods.source_free import SourceFree
from scale_ray.training.checkpoint import from_bytes, to_bytes
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import check_trial
from scale_ray.training.trial import Training

NAMES = [name for name, method in METHODS.items() if issubclass(method, SourceFree)]
CPU = torch.device("cpu")


def of(config: TrialConfig, name: str, **changes: Any) -> TrialConfig:
    return config.replace({"method": name, "losses.terms": "ce", **changes})


def training(config: TrialConfig, root: Path) -> Training:
    source, targets = open_data(config, ["inverted"], root)
    return Training(config, source, targets, CPU)


def test_both_are_here() -> None:
    assert NAMES == ["shot", "aad"]


@pytest.mark.parametrize("name", NAMES)
def test_no_source_image_is_read_after_the_switch(name: str, tiny_config: TrialConfig, tiny_root: Path) -> None:
    """From the switch on the batches have no source at all, and the training ends with the same bits."""
    config = of(tiny_config, name)
    whole, without = training(config, tiny_root), training(config, tiny_root)
    made: list[tuple[str, int]] = []

    class Watched(Batches):
        def source(self, step: int) -> Any:
            made.append(("source", step))
            return super().source(step)

        def target(self, step: int) -> Any:
            made.append(("target", step))
            return super().target(step)

    def take_away(done: int) -> None:
        if done == 6:
            del without._batches._source

    without._batches.__class__ = Watched
    found = without.run(progress=Progress(on_step=take_away))
    assert made == [("source", step) for step in range(6)] + [("target", step) for step in range(6, 12)]
    assert found.points == whole.run().points


@pytest.mark.parametrize("name", NAMES)
def test_the_share_says_where_the_switch_lies(name: str, tiny_config: TrialConfig) -> None:
    for share, switch in ((0.5, 6), (0.25, 3), (0.9, 11)):
        method = build(of(tiny_config, name, **{"baseline.source_share": share}))
        assert [step for step in range(12) if method.needs_source(step)] == list(range(switch))
        assert [step for step in range(12) if method.needs_target(step)] == list(range(switch, 12))
        assert method.progress(switch) == 0
    with pytest.raises(ConfigError, match=r"source_share=0.01 of optim.steps=12 leaves method .* no step on one"):
        check_trial(of(tiny_config, name, **{"baseline.source_share": 0.01}))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_part_is_source_only_with_smoothed_labels(name: str, tiny_config: TrialConfig) -> None:
    batch = source_batch()
    logits = build(of(tiny_config, "source_only")).student(batch.images).logits
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    losses = take_step(build(of(tiny_config, name)), 0).losses
    assert {term: loss.item() for term, loss in losses.items()} == {"ce": expected.item()}


@pytest.mark.parametrize(("name", "still"), [("shot", True), ("aad", False)])
def test_shot_alone_keeps_the_last_layer(name: str, still: bool, tiny_config: TrialConfig, tiny_root: Path) -> None:
    found = training(of(tiny_config, name), tiny_root)
    state = found.run(last=6).state
    before = {key: value.clone() for key, value in found.method.student.named_parameters()}
    later = training(of(tiny_config, name), tiny_root)
    later.run(start=state)
    moved = {key for key, value in later.method.student.named_parameters() if not torch.equal(value, before[key])}
    last = {"classifier.3.weight", "classifier.3.bias"}
    of_projector = {key for key in before if key.startswith("projector")}
    assert moved == before.keys() - of_projector - (last if still else set())


@pytest.mark.parametrize("batch_norm", ["separate", "joint", "domain", "frozen"])
@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_bit_for_bit_after_the_switch(
    name: str, batch_norm: str, tiny_config: TrialConfig, tiny_root: Path
) -> None:
    """Between two surveys: pseudo-labels and bank come from the state."""
    config = of(tiny_config, name, **{"model.batch_norm": batch_norm, "optim.learning_rate": 0.01})
    whole, first, second = (training(config, tiny_root) for _ in range(3))
    expected = whole.run()
    half = first.run(last=9)
    assert second.run(start=from_bytes(to_bytes(half.state, "key"), "key", "here", CPU)).points == expected.points
    states = second.method.state_dict(), whole.method.state_dict()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_each_domain_has_its_own_statistics_with_batch_norm_domain(
    name: str, tiny_config: TrialConfig, tiny_root: Path
) -> None:
    found = training(of(tiny_config, name, **{"model.batch_norm": "domain"}), tiny_root)
    layer = found.method.student.classifier[1]
    state = found.run(last=6).state
    assert torch.equal(layer.running_mean, layer.target_mean)
    of_source = layer.running_mean.clone()
    found.run(start=state)
    assert torch.equal(layer.running_mean, of_source)
    assert not torch.equal(layer.target_mean, of_source)


def test_shot_by_hand(tiny_config: TrialConfig) -> None:
    """Entropy minus diversity with the constant log K, and cross-entropy with the labels of the survey."""
    method = build(of(tiny_config, "shot"))
    survey_before(method, 6)
    assert method.labels.shape == (BATCH,)
    output = take_step(method, 6)
    p = build(of(tiny_config, "shot")).student(target_batch().weak).logits.log_softmax(dim=1).exp()
    entropy, mean = -(p * p.log()).sum(dim=1).mean(), p.mean(dim=0)
    diversity = -(mean * mean.log()).sum()
    expected = {
        "im": entropy - diversity + torch.tensor(CLASSES).log(),
        "centroid": -p.log().gather(1, method.labels[:, None]).mean(),
    }
    assert output.losses.keys() == expected.keys()
    for term, value in expected.items():
        assert output.losses[term].item() == pytest.approx(value.item(), rel=1e-5)
    assert output.weights == {"im": 1.0, "centroid": 0.3}
    assert torch.equal(output.pseudo_labels, method.labels)


def test_shot_looks_again_after_every_target_epoch(tiny_config: TrialConfig, tiny_root: Path) -> None:
    config = of(tiny_config, "shot", **{"optim.steps": 40})
    method = training(config, tiny_root).method
    epoch = -(-48 // config.optim.batch_size)
    assert [step for step in range(40) if method.surveys(step)] == list(range(20, 40, epoch))
    assert [step for step in range(12) if build(of(tiny_config, "aad")).surveys(step)] == [6]


def test_aad_by_hand(tiny_config: TrialConfig) -> None:
    """Its bank has what the batch was just predicted as; with six images all others are neighbours."""
    method = build(of(tiny_config, "aad", **{"baseline.weight": 0.1}))
    survey_before(method, 9)
    output = take_step(method, 9)
    p = build(of(tiny_config, "aad")).student(target_batch().weak).logits.softmax(dim=1)
    products = (p @ p.T).fill_diagonal_(0).sum(dim=1).mean()
    assert output.losses["attraction"].item() == pytest.approx(-products.item(), rel=1e-5)
    assert output.losses["dispersion"].item() == pytest.approx(products.item(), rel=1e-5)
    assert output.weights == pytest.approx({"attraction": 0.1, "dispersion": 0.1 * (1 + 10 * 0.5) ** -5})
    assert torch.allclose(method.bank.probabilities, p)
    assert torch.allclose(method.bank.features.norm(dim=1), torch.ones(BATCH))


@pytest.mark.parametrize("name", NAMES)
def test_a_survey_sees_no_image_beside_another_and_leaves_the_student_as_it_was(
    name: str, tiny_config: TrialConfig
) -> None:
    method = build(of(tiny_config, name))
    before = {key: value.clone() for key, value in method.student.state_dict().items()}
    images = target_batch().weak
    whole = method.encode(images, "target")
    assert torch.allclose(whole[:2], method.encode(images[:2], "target"), atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in method.student.state_dict().items())
    assert all(layer.training for layer in method.student.modules())
