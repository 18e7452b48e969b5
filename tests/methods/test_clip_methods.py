"""The methods on a frozen CLIP: what learns and what does not, resumed, and what each promises.

On two workers: tests/training/test_parallel.py."""

from pathlib import Path

import pytest
import torch
from opened import open_data
from safetensors.torch import load_file
from tiny_clip import TINY_TRANSFORMER
from tiny_steps import build, source_batch, target_batch
from torch import Tensor

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.methods import Method
from scale_ray.models.clip import CLIP_BACKBONES
from scale_ray.store import Store
from scale_ray.training.checkpoint import from_bytes
from scale_ray.training.loop import Point, Progress
from scale_ray.training.resolve import check_trial, resolve
from scale_ray.training.setup import configure_torch
from scale_ray.training.stages import alone, stage_tree
from scale_ray.training.trial import Training, run_stage, run_trial

CPU = torch.device("cpu")
LEARNING = ("daprompt", "ad_clip")
ALL = ("clip_zero_shot", *LEARNING)
every_learning_method = pytest.mark.parametrize("name", LEARNING)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """What a trial has by default. On a busy machine two threads that wait for each other are 20 times slower."""
    configure_torch(threads=1)


def training(config: TrialConfig, root: Path) -> Training:
    source, targets = open_data(config, [config.data.target], root)
    return Training(config, source, targets, CPU)


def of_clip(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.student.encoder.model.state_dict().items()}


@every_learning_method
def test_clip_stays_bit_for_bit_and_all_else_learns(name: str, clip_config: TrialConfig, tiny_root: Path) -> None:
    made = training(clip_config.replace({"method": name}), tiny_root)
    learnt = {key: value.clone() for key, value in made.method.state_dict().items()}
    frozen = of_clip(made.method)
    assert not any("encoder" in key for key in learnt)
    assert learnt.keys() == {key for key, value in made.method.named_parameters() if value.requires_grad}
    made.run()
    assert all(torch.equal(value, frozen[key]) for key, value in of_clip(made.method).items())
    assert all(not torch.equal(value, learnt[key]) for key, value in made.method.state_dict().items())


@every_learning_method
def test_losses_fall_on_textures_that_clip_can_tell_apart(name: str, clip_config: TrialConfig, tiny_root: Path) -> None:
    config = clip_config.replace({"method": name, "optim.steps": 40, "evaluate_every": 10, "data.target": "dark"})
    points = training(config, tiny_root).run().points
    assert points[-1].losses["ce"] < 0.7 * points[0].losses["ce"]
    assert points[-1].accuracies.source_val > 90  # chance is 33


def test_zero_shot_takes_no_step_and_tells_what_clip_knows(clip_config: TrialConfig, tiny_root: Path) -> None:
    made = training(clip_config.replace({"method": "clip_zero_shot", "evaluate_every": 1}), tiny_root)
    steps: list[int] = []
    seen: list[Point] = []
    trained = made.run(progress=Progress(on_step=steps.append, on_point=seen.append))
    assert steps == []
    assert seen == trained.points
    (point,) = trained.points
    assert point.step == 0
    assert point.accuracies.source_val == 100  # its CLIP was trained on this domain; chance is 33
    assert point.losses == {}
    assert not any(parameter.requires_grad for parameter in made.method.parameters())


def test_zero_shot_depends_on_the_target_alone(clip_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    """Whatever the source, the seed and the length: the same confusion matrix; of another target another."""
    store, execution = Store(tmp_path, create=True), Execution(root=tiny_root)
    zero_shot = clip_config.replace({"method": "clip_zero_shot"})
    records = [
        run_trial(zero_shot.replace(changes), execution, store)
        for changes in (
            {"data.source": "plain", "data.target": "dark"},
            {"data.source": "inverted", "data.target": "dark"},
            {"data.source": "plain", "data.target": "dark", "seed": 7, "optim.steps": 50},
            {"data.source": "dark", "data.target": "plain"},
        )
    ]
    assert len({record.id for record in records}) == 4
    results = [record.result for record in records if record.result is not None]
    assert results[0].confusion == results[1].confusion == results[2].confusion != results[3].confusion
    assert [result.target_accuracy for result in results[:3]] == [results[0].target_accuracy] * 3
    assert results[3].target_accuracy == 100
    assert [(result.steps, len(result.curve)) for result in results] == [(0, 1)] * 4


def test_zero_shot_measures_the_targets_of_a_source_at_once(
    clip_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    execution = Execution(root=tiny_root)
    cells = []
    for target in ("inverted", "dark"):
        config = clip_config.replace({"method": "clip_zero_shot", "data.target": target})
        cells.append(resolve(config, tiny_root))
    (stage,) = stage_tree(cells)
    assert stage.steps == alone(cells[0]).steps == 0
    shared = run_stage(stage, execution, None)
    assert [record.result for record in shared] == [run_trial(cell.config, execution, None).result for cell in cells]


def test_an_ensemble_is_another_cell_with_other_features(clip_config: TrialConfig, tiny_root: Path) -> None:
    one, many = (
        training(clip_config.replace({"method": "clip_zero_shot", "baseline.prompt_ensemble": ensemble}), tiny_root)
        for ensemble in (False, True)
    )
    features = [made.method.student.state_for_prediction()["class_features"] for made in (one, many)]
    assert not torch.equal(*features)


@pytest.mark.parametrize("name", ALL)
def test_interrupted_and_resumed_equals_uninterrupted(
    name: str, clip_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    class Interrupted(KeyboardInterrupt):
        pass

    def interrupt(done: int) -> None:
        if done == 8:
            raise Interrupted

    config = clip_config.replace({"method": name})
    execution = Execution(root=tiny_root, checkpoint_every=3, keep_model=True)
    whole, broken = (Store(tmp_path / place, create=True) for place in ("whole", "broken"))
    expected = run_trial(config, execution, whole)
    if name in LEARNING:
        with pytest.raises(Interrupted):
            run_trial(config, execution, broken, Progress(on_step=interrupt))
        checkpoint = broken.read_checkpoint(expected.id)
        assert checkpoint is not None
        state = from_bytes(checkpoint, expected.id, "here", CPU)
        assert state["step"] == 6
        assert not any("encoder" in key for key in state["method"])  # CLIP's weights are no part of it
    resumed = run_trial(config, execution, broken)
    assert resumed.result == expected.result
    models = [load_file(store.model_location(expected.id)) for store in (whole, broken)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())


def test_no_sure_image_gives_a_finite_loss_and_gradient(clip_config: TrialConfig) -> None:
    method = build(clip_config.replace({"method": "daprompt", "baseline.prompt_threshold": 0.9999999}))
    output = method.step(0, source_batch(), target_batch())
    assert output.kept is not None
    assert not output.kept.any()
    assert output.losses["prompt"] == 0
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.requires_grad)


def test_daprompts_losses_one_image_at_a_time(clip_config: TrialConfig) -> None:
    """The softmax goes over the 2 K prompts of both domains."""
    method = build(clip_config.replace({"method": "daprompt", "baseline.prompt_threshold": 0.6}))
    student, source, target = method.student, source_batch(), target_batch()
    output = method.step(0, source, target)
    both = torch.cat([student.class_features([student.source]), student.class_features([student.target])])
    temperature = student.encoder.temperature
    expected = {"ce": 0.0, "prompt": 0.0}
    for place in range(6):
        of_source, of_target = (
            student.encoder(each[place : place + 1]).features for each in (source.images, target.weak)
        )
        expected["ce"] -= (both @ of_source[0] / temperature).log_softmax(dim=0)[source.labels[place]].item() / 6
        zero_shot = (student.zero_shot_features @ of_target[0] / temperature).softmax(dim=0)
        if zero_shot.max() > 0.6:
            label = 3 + int(zero_shot.argmax())
            expected["prompt"] -= (both @ of_target[0] / temperature).log_softmax(dim=0)[label].item() / 6
    assert {term: loss.item() for term, loss in output.losses.items()} == pytest.approx(expected, rel=1e-4)
    assert output.weights == {"prompt": 1.0}


def test_with_class_tokens_each_class_learns_shared_tokens_of_its_own(clip_config: TrialConfig) -> None:
    """The prompts of class k are those of a student whose one context is that of k."""
    config = clip_config.replace({"method": "daprompt"})
    generic, specific = (
        build(config.replace({"baseline.class_tokens": by_class})).student for by_class in (False, True)
    )
    assert (generic.shared.shape, specific.shared.shape) == ((16, 32), (3, 16, 32))
    with torch.no_grad():
        found = specific.class_features([specific.source, specific.target]).unflatten(0, (2, 3))
        for label in range(3):
            generic.shared.copy_(specific.shared[label])
            alone = generic.class_features([specific.source, specific.target]).unflatten(0, (2, 3))
            torch.testing.assert_close(found[:, label], alone[:, label])
    specific.class_features([specific.source])[1].sum().backward()
    assert specific.shared.grad.abs().sum(dim=(1, 2)).gt(0).tolist() == [False, True, False]


def test_ad_clip_gives_every_image_its_own_prompt(clip_config: TrialConfig) -> None:
    """An image's logits do not depend on the batch that it is in, neither in training's pairs nor in prediction."""
    method = build(clip_config.replace({"method": "ad_clip"}))
    student, images = method.student, source_batch().images
    with torch.no_grad():
        whole = student.predict(images)
        torch.testing.assert_close(whole, torch.cat([student.predict(each) for each in images.split(1)]))
    assert not torch.allclose(whole, whole[:1].expand_as(whole))
    output = method.step(0, source_batch(), target_batch())
    assert list(output.losses) == ["ce", "entropy", "alignment", "mapping"]
    assert output.weights == {"entropy": 0.01, "alignment": 1.0, "mapping": 0.1}


def test_ad_clip_reads_style_from_a_transformer_too(clip_config: TrialConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIP_BACKBONES, "transformer", TINY_TRANSFORMER)
    method = build(clip_config.replace({"method": "ad_clip", "model.backbone": "transformer", "model.weights": "none"}))
    output = method.step(0, source_batch(), target_batch())
    torch.stack(list(output.losses.values())).sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in method.parameters() if value.requires_grad)


def test_ad_clips_mapper_learns_from_its_error_alone(clip_config: TrialConfig) -> None:
    """And the style tokens that it should give learn nothing from it."""
    method = build(clip_config.replace({"method": "ad_clip"}))
    method.step(0, source_batch(), target_batch()).losses["mapping"].backward()
    student = method.student
    assert all(parameter.grad is not None for parameter in student.mapper.parameters())
    assert all(parameter.grad is None for parameter in (*student.style.parameters(), *student.content.parameters()))


@pytest.mark.parametrize("name", ALL)
def test_what_it_cannot_honour_is_refused(name: str, clip_config: TrialConfig) -> None:
    config = clip_config.replace({"method": name})
    check_trial(config)
    for changes, words in (
        ({"losses.terms": "ce+ssl"}, r"losses.terms is 'ce\+ssl'"),
        ({"model.backbone": "resnet50"}, rf"model.backbone of method '{name}' 'resnet50'.*known: clip_rn50"),
        ({"model.weights": "imagenet"}, r"no file 'imagenet': write 'openai'"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_trial(config.replace(changes))
    if name != "daprompt":
        with pytest.raises(ConfigError, match=r"pseudo-labels, and method .* makes none"):
            check_trial(config.replace({"data.class_balance": "both"}))


def test_other_methods_take_no_clip(clip_config: TrialConfig) -> None:
    with pytest.raises(ConfigError, match=r"unknown model.backbone 'clip_tiny'.*lenet"):
        check_trial(clip_config.replace({"method": "source_only"}))
