"""What Tune is told of a point of the curve."""

from scale_ray.sweep.trainable import metrics
from scale_ray.training.evaluation import Accuracies
from scale_ray.training.loop import Point
from scale_ray.training.validators import VALIDATORS


def test_means_over_targets() -> None:
    validators = {
        domain: {name: float(place + shift) for place, name in enumerate(VALIDATORS)}
        for domain, shift in (("here", 0), ("there", 3))
    }
    accuracies = Accuracies({"here": 50.0, "there": 60.0}, None, 90.0, {}, validators)
    assert metrics(Point(7, accuracies, {"ce": 1.0}, None, None)) == {
        "step": 7,
        "target_accuracy": 55.0,
        "source_val_accuracy": 90.0,
        "validator_source_val": 1.5,
        "validator_entropy": 2.5,
        "validator_im": 3.5,
        "validator_snd": 4.5,
        "validator_bnm": 5.5,
        "validator_dev": 6.5,
        "validator_classami": 7.5,
        "validator_transfer_score": 8.5,
        "validator_reverse": 9.5,
        "validator_mixval": 10.5,
        "validator_circular": 11.5,
        "validator_coherence": 12.5,
    }
