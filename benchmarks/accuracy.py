"""Where the accuracy goes on frozen features: source_only against a logistic regression, and each part of scale.

    python benchmarks/accuracy.py --emoji EmojiPhoto --pacs PACS --mobilenet mobilenet_v2.pth [--seeds 3]

The classifier that gets the source's labels should not lose to a logistic regression that gets the same features, the
same images and the same labels. The tables vary one thing at a time. Target labels measure; they choose nothing.
Every training is the package's own, and the same command goes on where an earlier one stopped.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from results import leave_tables
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from scale_ray import METHODS, Execution, TrialConfig, base_config
from scale_ray.data.batches import hold_out
from scale_ray.data.decoded import Domain
from scale_ray.methods.base import MethodContext
from scale_ray.methods.source_only import SourceOnly
from scale_ray.models.domain_norm import split_by_domain
from scale_ray.models.network import FeatureNetwork
from scale_ray.store import Store
from scale_ray.training.features import open_inputs
from scale_ray.training.resolve import resolve
from scale_ray.training.seeding import generator
from scale_ray.training.setup import configure_torch
from scale_ray.training.stages import alone
from scale_ray.training.trial import Training
from scale_ray.training.validators import VALIDATORS

EMOJI = [("drawing", "photo"), ("photo", "drawing")]
PACS = [("art_painting", "cartoon"), ("cartoon", "photo"), ("photo", "art_painting"), ("photo", "cartoon")]
# Every row has these unless it names others.
SLOWER = {"optim.learning_rate": 0.003, "optim.schedule": "inverse"}
FASTER = {"optim.learning_rate": 0.01, "optim.schedule": "cosine"}
QUARTERS = 4  # of a training, by which pseudo-labels are judged
EVALUATION, WEAK, STRONG = (0, 1), (1, 5), (5, 9)  # from which to which stored view

SOURCE_ONLY = {"method": "source_only", "losses.terms": "ce"}  # a Linear, where the encoder is frozen
LAYERS = {**SOURCE_ONLY, "model.head": "mlp"}  # those of the methods that adapt
COSINE = {**LAYERS, "optim.schedule": "cosine"}
CE_SSL = {"method": "scale", "losses.terms": "ce+ssl"}
SCALE = {"method": "scale"}
PROTOTYPES = {"method": "prototypes", "losses.terms": "ce"}


@dataclass(frozen=True)
class Row:
    """What a line of a table measures.

    Attributes:
        name: as the table writes it.
        changes: of a training, by dotted path; empty for a regression.
        views: of a regression: how many stored views of a source image it fits (1: the evaluation view, 5: the weak
            ones too, 9: the strong ones too).
        scaled: of a regression: by whose mean and deviation features are standardised.
        tested: of a regression: from which to which stored view of the target it is measured.
        images: of each class of the source that are used; None: all.
        everywhere: PACS is measured too.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    views: int = 1
    scaled: str = "nothing"
    tested: tuple[int, int] = (0, 1)
    images: int | None = None
    everywhere: bool = False


def regression(
    views: int, scaled: str, *, tested: tuple[int, int] = (0, 1), images: int | None = None, everywhere: bool = False
) -> Row:
    seen = {1: "evaluation view", 5: "evaluation and weak views", 9: "all views"}[views]
    by = {"nothing": "features as they are", "source": "standardised by the source", "domain": "each domain by itself"}
    asked = {EVALUATION: "", WEAK: ", measured on weak views", STRONG: ", measured on strong views"}[tested]
    name = f"regression, {seen}, {by[scaled]}{asked}"
    return Row(name, {}, views, scaled, tested, images, everywhere)


def training(name: str, changes: Mapping[str, Any], *, everywhere: bool = False, images: int | None = None) -> Row:
    return Row(name, changes, images=images, everywhere=everywhere)


def on_each(name: str, path: str, values: Sequence[Any], base: Mapping[str, Any], **further: Any) -> list[Row]:
    return [training(f"{name}, {path}={value}", {**base, path: value}, **further) for value in values]


USUAL = training("source_only", SOURCE_ONLY, everywhere=True)

QUESTIONS: dict[str, list[Row]] = {
    "Does source_only lose to a logistic regression?": [
        *(regression(views, scaled) for views in (1, 5, 9) for scaled in ("nothing", "source", "domain")),
        USUAL,
        training("source_only, rate 0.01, cosine", SOURCE_ONLY | FASTER, everywhere=True),
    ],
    "Depth of the head": [
        training("Linear: source_only", SOURCE_ONLY, everywhere=True),
        training("BatchNorm - Linear", {**SOURCE_ONLY, "method": "probe_scaled"}),
        training("bottleneck - Linear", {**LAYERS, "method": "probe_bottleneck"}),
        training("bottleneck - hidden layer - Linear", LAYERS, everywhere=True),
        training("the same without BatchNorm", {**LAYERS, "method": "probe_without_batch_norm"}),
        *on_each("bottleneck - hidden layer - Linear", "model.bottleneck_dim", [1024], LAYERS),
    ],
    "Optimiser": [
        *on_each("source_only", "optim.learning_rate", [0.003, 0.01, 0.03], SOURCE_ONLY),
        *on_each("hidden layers", "optim.learning_rate", [0.003, 0.01, 0.03, 0.1], LAYERS, everywhere=True),
        *on_each("hidden layers, optim.schedule=cosine", "optim.learning_rate", [0.01, 0.03], COSINE, everywhere=True),
        *on_each("hidden layers", "optim.weight_decay", [0.0, 0.01], LAYERS),
        *on_each("source_only", "optim.steps", [300, 3000], SOURCE_ONLY),
        *on_each("scale", "optim.learning_rate", [0.003, 0.01, 0.03], SCALE),
    ],
    "BatchNorm against standardised domains": [
        regression(5, "domain", everywhere=True),
        training("hidden layers, the source's statistics", LAYERS, everywhere=True),
        training(
            "hidden layers, statistics of the whole target",
            {**LAYERS, "model.target_statistics": "whole"},
            everywhere=True,
        ),
        training(
            "the same, rate 0.01, cosine", {**LAYERS, "model.target_statistics": "whole"} | FASTER, everywhere=True
        ),
        *on_each("scale", "model.batch_norm", ["domain", "separate", "joint"], SCALE),
        *on_each("scale", "model.target_statistics", ["whole"], SCALE),
    ],
    "Threshold": [
        *on_each("ce+ssl", "losses.threshold", [0.0, 0.5, 0.8, 0.95], CE_SSL),
        *on_each("ce+ssl", "losses.thresholding", ["flex", "relative"], CE_SSL),
    ],
    "Class-balanced sampling and class frequencies": [
        *on_each("source_only", "data.class_balance", ["off", "source"], SOURCE_ONLY),
        *on_each("ce+ssl", "data.class_balance", ["off", "source", "both"], CE_SSL),
        *on_each("ce+ssl", "losses.alignment", ["source", "uniform"], CE_SSL),
    ],
    "Images of a class": [
        *(
            row
            for images in (5, 10)
            for row in (
                regression(5, "nothing", images=images, everywhere=True),
                training("source_only", SOURCE_ONLY, images=images, everywhere=True),
                training("prototypes", PROTOTYPES, images=images, everywhere=True),
            )
        ),
    ],
    "Strong views": [
        regression(5, "nothing", tested=WEAK),
        regression(5, "nothing", tested=STRONG),
        regression(9, "nothing", tested=STRONG),
        *on_each("source_only", "views.source", ["weak", "alternating"], SOURCE_ONLY, everywhere=True),
        *on_each("ce+ssl", "views.source", ["weak", "alternating"], CE_SSL),
    ],
    "References": [
        training("scale", SCALE, everywhere=True),
        training("scale, rate 0.01, cosine", SCALE | FASTER, everywhere=True),
        training("prototypes", PROTOTYPES, everywhere=True),
        *on_each("scale", "losses.pseudo_labels", ["average", "prototype"], SCALE),
    ],
}


# Heads of other depths. They are classes of this file, and so their names are no methods of the package.


class ScaledProbe(SourceOnly):
    """A Linear on features that BatchNorm standardises."""

    @classmethod
    def build_student(cls, context: MethodContext) -> FeatureNetwork:
        network = super().build_student(context)
        assert isinstance(network, FeatureNetwork)
        linear = network.bottleneck[0]
        assert isinstance(linear, nn.Linear)
        width = linear.in_features
        network.bottleneck, network.feature_dim = nn.Sequential(nn.BatchNorm1d(width, affine=False)), width
        split_by_domain(network.bottleneck)
        network.classifier = nn.Sequential(nn.Linear(width, context.num_classes))
        return network


class BottleneckProbe(SourceOnly):
    """A Linear on the bottleneck."""

    @classmethod
    def build_student(cls, context: MethodContext) -> FeatureNetwork:
        network = super().build_student(context)
        assert isinstance(network, FeatureNetwork)
        network.classifier = nn.Sequential(nn.Linear(network.feature_dim, context.num_classes))
        return network


class ProbeWithoutBatchNorm(SourceOnly):
    """Bottleneck and hidden layer without their BatchNorm."""

    @classmethod
    def build_student(cls, context: MethodContext) -> FeatureNetwork:
        network = super().build_student(context)
        assert isinstance(network, FeatureNetwork)
        for layers in (network.bottleneck, network.classifier):
            layers[1] = nn.Identity()
        return network


PROBES = {
    "probe_scaled": ScaledProbe,
    "probe_bottleneck": BottleneckProbe,
    "probe_without_batch_norm": ProbeWithoutBatchNorm,
}


@dataclass(frozen=True)
class Bench:
    """Where things lie, and how much is measured."""

    store: Store
    weights: str
    roots: Mapping[str, Path]  # benchmark -> folder
    settings: Mapping[str, Any]  # by dotted path, of every training
    steps: int | None
    stored: bool  # nothing is measured that is not there yet

    def config(self, benchmark: str, pair: tuple[str, str], seed: int, changes: Mapping[str, Any]) -> TrialConfig:
        fields = {
            "model.encoder": "frozen",
            "model.backbone": "mobilenet_v2",
            "model.weights": self.weights,
            "data.source": pair[0],
            "data.target": pair[1],
            "seed": seed,
        }
        steps = None if self.steps is None or "optim.steps" in changes else self.steps
        config = base_config(benchmark, {**fields, **self.settings, **changes}, steps=steps)
        return config.replace({"evaluate_every": config.optim.steps})

    def execution(self, config: TrialConfig) -> Execution:
        return Execution(root=self.roots[config.data.benchmark], device="cpu")

    def opened(self, config: TrialConfig) -> tuple[Domain, Domain]:
        """Source and target with their stored features."""
        cell = resolve(config, self.roots[config.data.benchmark])
        source, targets = open_inputs(alone(cell), self.execution(config), self.store)
        return source, targets[config.data.target]

    def measured(self, row: Row, config: TrialConfig) -> list[dict[str, Any]]:
        """What a row gives with a config, kept in the store's folder; nothing where only stored figures are wanted."""
        cell = resolve(config, self.roots[config.data.benchmark])
        document = [cell.id, row.images, *([] if row.changes else [row.views, row.scaled, row.tested])]
        name = hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]
        assert self.store.folder is not None
        path = self.store.folder / "measured" / f"{name}.json"
        if not path.exists() and self.stored:
            return []
        if not path.exists():
            source, target = self.opened(config)
            source = source if row.images is None else _first_of_each_class(source, row.images, config.seed)
            found = _train(config, source, target) if row.changes else _regress(row, config, source, target)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found))
        return [json.loads(path.read_text())]


def _first_of_each_class(domain: Domain, images: int, seed: int) -> Domain:
    """The domain with at most so many images of each class, drawn by the seed."""
    labels = domain.known_labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).numpy()
    kept = np.sort(np.concatenate([order[labels[order] == k][:images] for k in range(len(domain.classes))]))
    return replace(domain, images=np.asarray(domain.images[kept]), labels=labels[kept])


def _regress(row: Row, config: TrialConfig, source: Domain, target: Domain) -> dict[str, Any]:
    """Fit the images that a training would train on, and measure as it is measured."""
    fit, held_out = hold_out(source, config.data.holdout, generator(config.seed, "hold_out", 0))
    views = np.asarray(fit.images[fit.indices, : row.views], np.float32)
    known, labels = views.reshape(-1, views.shape[2]), np.repeat(fit.labels, row.views)
    tested = np.asarray(target.images[:, slice(*row.tested)], np.float32)
    asked, truth = tested.reshape(-1, tested.shape[2]), np.repeat(target.known_labels, tested.shape[1])
    scale: Callable[[np.ndarray], np.ndarray] = lambda features: features  # noqa: E731
    scale_target = scale
    if row.scaled != "nothing":
        scale = StandardScaler().fit(known).transform
        scale_target = StandardScaler().fit(asked).transform if row.scaled == "domain" else scale
    probe = LogisticRegression(max_iter=1000).fit(scale(known), labels)
    evaluation = np.asarray(held_out.images[held_out.indices, 0], np.float32)
    return {
        "accuracy": 100 * float(probe.score(scale_target(asked), truth)),
        "source_val": 100 * float(probe.score(scale(evaluation), held_out.labels)),
    }


def _train(config: TrialConfig, source: Domain, target: Domain) -> dict[str, Any]:
    trained = Training(config, source, {target.name: target}, torch.device("cpu"))
    labelled: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def watch(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if output.pseudo_labels is not None:
            labelled.append((inputs[2].indices.numpy(), output.pseudo_labels.numpy(), output.kept.numpy()))

    trained.method.register_forward_hook(watch)
    points = trained.run().points
    found = {"accuracy": points[-1].accuracies.target[target.name], "source_val": points[-1].accuracies.source_val}
    quarters = np.array_split(np.arange(len(labelled)), QUARTERS) if labelled else []
    return found | {"labels": [_quality([labelled[i] for i in part], target) for part in quarters]}


def _quality(labelled: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], target: Domain) -> dict[str, float]:
    """Pseudo-labels of some steps: how many are kept and right, and in how many classes they are not."""
    images, labels, kept = (np.concatenate(part) for part in zip(*labelled, strict=True))
    right, classes = labels == target.known_labels[images], np.arange(len(target.classes))
    precision = [float(right[kept & (labels == k)].mean()) for k in classes if (kept & (labels == k)).any()]
    return {
        "kept": 100 * float(kept.mean()),
        "right": 100 * float(right[kept].mean()) if kept.any() else 0.0,
        "right of the rest": 100 * float(right[~kept].mean()) if not kept.all() else 0.0,
        "classes mostly wrong": float(sum(share < 0.5 for share in precision)),
        "classes never kept": float(len(classes) - len(precision)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--emoji", type=Path, help="FOLDER/domain/class/image with the domains drawing and photo")
    parser.add_argument("--pacs", type=Path, help="FOLDER/domain/class/image of PACS")
    parser.add_argument("--mobilenet", default="imagenet", help="imagenet, or the path of a state dict")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of every training; for a try")
    parser.add_argument("--stored", action="store_true", help="write the tables of what was measured so far")
    parser.add_argument("--store", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--name", default="accuracy", help="of the files in results/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of every training; for a try"
    )
    asked = parser.parse_args()
    roots = {"image_folder": asked.emoji, "pacs": asked.pacs}
    METHODS.update(PROBES)
    VALIDATORS.clear()  # they cost more than the trainings, and no table here reads them
    configure_torch(1)
    bench = Bench(
        Store(asked.store, create=True),
        asked.mobilenet,
        {name: root.absolute() for name, root in roots.items() if root is not None},
        SLOWER | dict(text.split("=", 1) for text in asked.set),
        asked.steps,
        asked.stored,
    )
    tables: dict[str, list[dict[str, Any]]] = {}
    labels: list[dict[str, Any]] = []
    for question, rows in QUESTIONS.items():
        tables[question] = [_line(bench, row, range(asked.seeds), labels) for row in rows]
        print(question, *tables[question], sep="\n", flush=True)
    if labels:
        tables["Pseudo-labels by quarter of the training"] = labels
    notes = [
        f"target accuracy in percent, mean ± sample standard deviation of {asked.seeds} seeds, without a deviation of "
        "one; in brackets that on held-out images of the source; empty where nothing was measured",
        "average: mean over the pairs of EmojiPhoto-22, then over those of PACS",
        "a regression and a training of one seed have the same 90 % of the source's images; C = 1, the default",
        "features: frozen mobilenet_v2, 1,280 numbers an image and view; 4 weak and 4 strong views",
        "rate 0.003 and the schedule inverse, where a row names no others; further settings: "
        + (" ".join(asked.set) or "none"),
    ]
    print(leave_tables(asked.name, "Where the accuracy goes on frozen features", tables, notes))


def _line(bench: Bench, row: Row, seeds: Sequence[int], labels: list[dict[str, Any]]) -> dict[str, Any]:
    line: dict[str, Any] = {"what": row.name if row.images is None else f"{row.name}, {row.images} images a class"}
    for benchmark, pairs in (("image_folder", EMOJI), ("pacs", PACS)):
        if benchmark not in bench.roots:
            continue
        means = []
        for pair in pairs:
            wanted = seeds if row.everywhere or benchmark == "image_folder" else ()
            cells = [bench.config(benchmark, pair, seed, row.changes or SOURCE_ONLY) for seed in wanted]
            found = [each for config in cells for each in bench.measured(row, config)]
            line[">".join(pair)] = _shown(found)
            means += [fmean(each["accuracy"] for each in found)] if found else []
            if found and found[0].get("labels"):
                labels += _quarters(line["what"], ">".join(pair), found)
        line[f"average {benchmark}"] = f"{fmean(means):.1f}" if len(means) == len(pairs) else ""
    return line


def _shown(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    values = [each["accuracy"] for each in found]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread} ({fmean(each['source_val'] for each in found):.1f})"


def _quarters(name: str, pair: str, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"what": name, "pair": pair, "quarter": number + 1}
        | {key: round(fmean(each["labels"][number][key] for each in found), 1) for key in found[0]["labels"][number]}
        for number in range(QUARTERS)
    ]


if __name__ == "__main__":
    main()
