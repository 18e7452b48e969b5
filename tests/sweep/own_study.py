"""An experiment with entries of its own, run as a script by the tests: ROOT STORE [options]."""

import sys

import torch
from own_helpers import soften
from tiny_trial import TINY
from torch import nn

from scale_ray import (
    LOSSES,
    METHODS,
    Execution,
    LossTerm,
    Resources,
    Study,
    TrialConfig,
    approaches,
    main,
    run,
    training_function,
)
from scale_ray.losses import class_confusion
from scale_ray.methods.mcc import Mcc


class Mine(Mcc):
    paper = "a test's"

    def transfer(self, step, source, target):
        return class_confusion(soften(target.logits), self.config.baseline.mcc_temperature)


def pull(step, losses):
    return step.target_logits.float().square().mean()


class NearestMean(nn.Module):
    def __init__(self, means):
        super().__init__()
        self.register_buffer("means", means)

    def forward(self, images):
        return -torch.cdist(images.flatten(1), self.means)


def nearest_mean(data):
    images, labels = data.source_inputs()
    means = [images.flatten(1)[labels == label].mean(dim=0) for label in range(len(data.classes))]
    return NearestMean(torch.stack(means))


METHODS["mine"] = Mine
METHODS["nearest"] = training_function(nearest_mean)
LOSSES["pull"] = LossTerm(pull, needs=frozenset({"target"}), after_warmup=True)
study = Study("own", TrialConfig().replace(TINY), {"method": approaches("mine", "nearest", "scale:ce+0.1*pull")})

if __name__ == "__main__":
    root, store, *options = sys.argv[1:]
    if options:
        sys.argv[1:] = options
        main(study, root=root, store=store, local=True, device="cpu")
    else:
        print(run(study, store, root, execution=Execution(device="cpu"), resources=Resources(address="local")))
