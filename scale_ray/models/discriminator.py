"""What the adversarial methods train against the student: a domain discriminator, or a second classifier."""

from torch import nn


def domain_discriminator(inputs: int, hidden: int) -> nn.Sequential:
    """A network that maps (N, inputs) to (N,) logits, which are high for the source.

    It has two hidden layers of width `hidden` with BatchNorm, like TLLib's `DomainDiscriminator`
    (tllib/modules/domain_discriminator.py). BatchNorm sees both domains together and, with several workers, the global
    batch. The discriminator learns at the heads' rate and is dropped after training.
    """
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
        nn.Flatten(0),
    )


def auxiliary_classifier(inputs: int, num_classes: int) -> nn.Sequential:
    """A network that maps (N, inputs) to (N, num_classes) logits; its one hidden layer is as wide as the input.

    The head of TLLib's MDD (tllib/alignment/mdd.py), without its dropout.
    """
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, num_classes))
