"""The evaluator counts right, every image once, and leaves the models as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scale_ray.config import ModelConfig
from scale_ray.data.batches import LabelledImages
from scale_ray.models import Network, Teacher
from scale_ray.records import LAST_POINT_VALIDATORS
from scale_ray.training import evaluation, evidence
from scale_ray.training.evaluation import Evaluator
from scale_ray.training.evidence import MIX_SHARE, Evidence, Mixed, Predictions, mixed_pairs, sample_indices
from scale_ray.training.failures import TrainingDiverged
from scale_ray.training.validators import VALIDATORS, scores

CONFIG = ModelConfig(hidden_dim=4, projection_dim=4)


class FirstChannel(nn.Module):
    """Classifies by brightness: class 1 where the red channel is bright."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def network() -> Network:
    built = Network(FirstChannel(), 3, 2, CONFIG)
    built.classifier = nn.Sequential(nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        built.classifier[0].weight.copy_(torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]))
    return built


def images(count: int, wrong: int) -> LabelledImages:
    """`count` images, every second one bright and of class 1; the first `wrong` labels are turned around."""
    labels = np.arange(count) % 2
    pixels = np.zeros((count, 3, 4, 4), np.uint8)
    pixels[:, 0] = (255 * labels)[:, None, None]
    shown = labels.copy()
    shown[:wrong] = 1 - shown[:wrong]
    return LabelledImages(pixels, np.arange(count), shown)


def test_percent_over_several_batches_with_a_smaller_last_one() -> None:
    count = 2 * evaluation._BATCH + 88  # 600
    evaluator = Evaluator(
        {"here": images(count, 150), "there": images(4, 2)},
        images(10, 1),
        images(6, 0),
        num_classes=2,
        size=4,
        device=torch.device("cpu"),
    )
    student = network()
    measured = evaluator.measure(student, Teacher(student, 0.99))
    assert measured.target == measured.teacher == {"here": 75.0, "there": 50.0}
    assert measured.source_val == 90.0


def test_without_a_teacher_there_is_no_teacher_accuracy() -> None:
    evaluator = Evaluator(
        {"there": images(4, 0)}, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu")
    )
    assert evaluator.measure(network(), None).teacher is None


def test_models_come_back_in_their_modes() -> None:
    student = Network(nn.BatchNorm2d(3), 3, 2, CONFIG).train()
    student.encoder.eval()  # a frozen part stays frozen
    teacher = Teacher(student, 0.99)
    before = [module.training for module in (*student.modules(), *teacher.modules())]
    buffers = [buffer.clone() for buffer in (*student.buffers(), *teacher.buffers())]
    Evaluator(
        {"there": images(4, 0)}, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu")
    ).measure(student, teacher)
    assert [module.training for module in (*student.modules(), *teacher.modules())] == before
    assert all(map(torch.equal, buffers, (*student.buffers(), *teacher.buffers())))


def test_a_target_is_predicted_with_the_statistics_of_all_its_images() -> None:
    """As a layer whose running statistics are those of the whole domain; the student keeps its own."""
    config = ModelConfig(hidden_dim=4, projection_dim=4, batch_norm="domain", target_statistics="whole")
    torch.manual_seed(0)
    student = Network(FirstChannel(), 3, 2, config)
    count = 2 * evaluation._BATCH + 88
    targets = {"here": images(count, 0), "there": images(4, 0)}
    made = {
        whole: Evaluator(
            targets,
            images(10, 0),
            images(6, 0),
            num_classes=2,
            size=4,
            device=torch.device("cpu"),
            whole_statistics=whole,
        )
        for whole in (False, True)
    }
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = made[True].probabilities(student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert student.training
    for domain in targets:
        with made[True].ready_for(student, domain):
            state = {name: value.clone() for name, value in student.state_dict().items()}
        by_hand = Network(FirstChannel(), 3, 2, config)
        by_hand.load_state_dict(state)
        assert torch.equal(made[False].probabilities(by_hand)[domain], found[domain])
    # Half of the images are bright in the first of three channels, for which ImageNet's mean and deviation stand here.
    rows = student.classifier[0](torch.cat([made[True]._stored(targets["here"])(torch.arange(count))]).mean(dim=(2, 3)))
    with made[True].ready_for(student, "here"):
        torch.testing.assert_close(student.classifier[1].target_mean, rows.mean(dim=0), rtol=0, atol=2e-2)
    one = {"one": images(1, 0)}
    alone = Evaluator(
        one, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu"), whole_statistics=True
    )
    with alone.ready_for(student, "one"):  # one image has no variance
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_confusion_has_true_classes_in_rows() -> None:
    """Ten images, five bright; the first three labels are turned around: 0 -> 1, 1 -> 0, 0 -> 1."""
    targets = {"there": images(10, 3)}
    evaluator = Evaluator(targets, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu"))
    measured = evaluator.measure(network(), None)
    assert measured.confusion == {"there": [[3, 1], [2, 4]]}
    assert measured.target == {"there": 70.0}


def test_accuracy_of_pseudo_labels_counts_each_use() -> None:
    targets = {"there": images(4, 0)}
    evaluator = Evaluator(targets, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu"))
    places, labels = torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 0, 1])
    assert evaluator.accuracy_of_labels(places, labels) == 75.0
    assert evaluator.accuracy_of_labels(places[:0], labels[:0]) is None


def shades(count: int, seed: int) -> LabelledImages:
    """Images whose red channels have shades of their own."""
    numbers = np.random.default_rng(seed)
    pixels = np.zeros((count, 3, 4, 4), np.uint8)
    pixels[:, 0] = numbers.integers(0, 256, (count, 1, 1))
    return LabelledImages(pixels, np.arange(count), numbers.integers(0, 2, count))


def seen(student: Network, images: LabelledImages) -> Predictions:
    """What the evaluator should tell validators of a split: all images forwarded at once, features by hand."""
    pixels = evaluation.evaluation_view(torch.from_numpy(images.images[images.indices]), size=4)
    sample = sample_indices(len(images.indices))
    with torch.no_grad():
        return Predictions(student.predict(pixels).double(), sample, pixels.mean(dim=(2, 3))[sample].double())


def mixes(student: Network, images: LabelledImages, predictions: Predictions) -> Mixed:
    """What it should tell of mixes: each made and forwarded alone."""
    predicted = predictions.logits.argmax(dim=1)[predictions.sample].tolist()
    labels, logits = [], []
    for first, second in mixed_pairs(torch.tensor(predicted)).tolist():
        pair = [predictions.sample[place] for place in (first, second)]
        one, other = (
            evaluation.evaluation_view(torch.from_numpy(images.images[images.indices[i]])[None], size=4) for i in pair
        )
        labels.append([predicted[first], predicted[second]])
        with torch.no_grad():
            logits.append(student.predict(MIX_SHARE * one + (1 - MIX_SHARE) * other)[0].double())
    return Mixed(torch.tensor(labels), torch.stack(logits))


@pytest.mark.parametrize("last", [False, True])
def test_validators_are_told_of_every_image_in_order_and_of_the_samples_features(
    monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """Of some 300 images, two batches, with samples of 40 and a source whose images are every second of its domain."""
    monkeypatch.setattr(evidence, "SAMPLE_SIZE", 40)
    targets = {"here": shades(300, 0), "there": shades(290, 1)}
    source = shades(120, 2)
    source_train = LabelledImages(source.images, source.indices[::2], source.labels[::2])
    source_val = LabelledImages(source.images, source.indices[1::2], source.labels[1::2])
    student = network()
    evaluator = Evaluator(targets, source_val, source_train, num_classes=2, size=4, device=torch.device("cpu"))
    measured = evaluator.measure(student, Teacher(student, 0.99), last=last)
    sampled = sample_indices(60).numpy()
    of_train = LabelledImages(source.images, source_train.indices[sampled], source_train.labels[sampled])
    for domain, images in targets.items():
        labels = torch.from_numpy(source_val.labels)
        predictions = seen(student, images)
        given = Evidence(seen(student, of_train), seen(student, source_val), labels, predictions)
        mixed = mixes(student, images, predictions) if last else None
        expected = scores(replace(given, class_weights=student.classifier[0].weight, mixed=mixed), last=last)
        assert measured.validators[domain] == pytest.approx(expected, rel=1e-6)
        assert measured.validators[domain]["source_val"] == measured.source_val
    assert measured.validators["here"].keys() == VALIDATORS.keys() - ({} if last else LAST_POINT_VALIDATORS)
    assert measured.validators["here"]["snd"] != measured.validators["there"]["snd"]


def test_a_target_is_scored_alike_alone_and_beside_others() -> None:
    def measured(*domains: int) -> dict[str, dict[str, float]]:
        targets = {str(seed): shades(30, seed) for seed in domains}
        evaluator = Evaluator(targets, shades(9, 3), shades(20, 4), num_classes=2, size=4, device=torch.device("cpu"))
        return evaluator.measure(network(), None).validators

    assert measured(0, 1) == measured(0) | measured(1)


def test_predictions_that_are_not_finite_end_the_training() -> None:
    student = network()
    with torch.no_grad():
        student.classifier[0].weight[0, 0] = torch.inf
    evaluator = Evaluator(
        {"there": images(4, 0)}, images(4, 0), images(6, 0), num_classes=2, size=4, device=torch.device("cpu")
    )
    with pytest.raises(TrainingDiverged, match=r"a prediction is not finite.*lower optim.learning_rate"):
        evaluator.measure(student, None)
