"""Seconds that each validator takes: N target images, K classes, features of width D, on one CPU thread.

python benchmarks/validators.py [N] [K]
"""

import sys
import time

import torch

from scale_ray.training.evidence import Common, Evidence, Mixed, Predictions
from scale_ray.training.validators import VALIDATORS

ROUNDS = 5


def evidence(images: int, classes: int, width: int) -> Evidence:
    """Features around a centre for each class; the predictions know them well but not perfectly."""
    numbers = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=numbers)

    def split(count: int, shift: float) -> tuple[Predictions, torch.Tensor]:
        labels = torch.randint(classes, (count,), generator=numbers)
        features = (centres[labels] + 2 * torch.randn(count, width, generator=numbers) + shift).relu().double()
        logits = 3 * torch.nn.functional.one_hot(labels, classes) + 2 * torch.randn(count, classes, generator=numbers)
        return Predictions(logits.double(), torch.arange(count), features), labels

    (train, labels), (val, val_labels), (target, _) = split(images, 0.0), split(images // 10, 0.0), split(images, 0.2)
    mixed = Mixed(torch.randint(classes, (2 * images, 2), generator=numbers), target.logits.repeat(2, 1))
    common = Common(train.features, labels, target.features)
    return Evidence(train, val, val_labels, target, centres.double(), mixed, common)


def main() -> None:
    images, classes = (int(text) for text in sys.argv[1:3] or ("2000", "45"))
    torch.set_num_threads(1)
    print(f"N {images}, K {classes}, one thread, best of {ROUNDS}, seconds")
    print("| width of features | " + " | ".join(VALIDATORS) + " | all |")
    print("|---" * (len(VALIDATORS) + 2) + "|")
    for width in (256, 1280):
        given = evidence(images, classes, width)
        seconds = {}
        for name, validator in VALIDATORS.items():
            validator(given)
            rounds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                validator(given)
                rounds.append(time.perf_counter() - began)
            seconds[name] = min(rounds)
        figures = [*seconds.values(), sum(seconds.values())]
        print(f"| {width} | " + " | ".join(f"{value:.3f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
