"""One TrialConfig goes in, one Record comes out: with Ray or without."""

import os
import time
import traceback
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch

from scale_ray.config import ConfigError, Execution, TrialConfig, check_name, identity
from scale_ray.data.batches import Batches, LabelledImages, UnlabelledImages, hold_out
from scale_ray.data.benchmarks import DataError, canonical_domain, check_benchmark
from scale_ray.data.decoded import Domain, domain_digest, open_domains
from scale_ray.data.views import STRONG_VIEWS
from scale_ray.losses import LOSSES
from scale_ray.methods import METHODS, Method, Setting
from scale_ray.models import BACKBONES, Network, build_encoder
from scale_ray.models.backbones import check_weights, weights_digest
from scale_ray.records import Failure, Record, Result, now, provenance
from scale_ray.store import Store, replacing
from scale_ray.training.evaluation import Evaluator
from scale_ray.training.loop import Progress, train
from scale_ray.training.seeding import generator, step_seed


def check_trial(config: TrialConfig) -> TrialConfig:
    """Refuse every name that does not exist, before any compute; return the config with domains spelt canonically.

    Raises:
        ConfigError: an unknown benchmark, domain, backbone, method, loss term, view, or weights that cannot be.
    """
    check_benchmark(config.data.benchmark)
    check_name("model.backbone", config.model.backbone, BACKBONES)
    check_name("method", config.method, METHODS)
    check_name("views.strong", config.views.strong, STRONG_VIEWS)
    for term in config.losses.terms:
        check_name("loss term", term, LOSSES)
    check_weights(config.model.backbone, config.model.weights)
    METHODS[config.method].check(config)
    domains = {
        role: canonical_domain(config.data.benchmark, config.value(f"data.{role}")) for role in ("source", "target")
    }
    return config.replace({f"data.{role}": domain for role, domain in domains.items()})


def trial_inputs(config: TrialConfig, root: Path | None) -> dict[str, str]:
    """Digests of the files that a trial reads, by role: what `identity` needs besides the config."""
    inputs = {role: _digest(config.data.benchmark, config.value(f"data.{role}"), root) for role in ("source", "target")}
    weights = weights_digest(config.model.weights)
    return inputs if weights is None else {**inputs, "weights": weights}


@cache
def _digest(benchmark: str, domain: str, root: Path | None) -> str:
    return domain_digest(benchmark, domain, root=root)


def open_data(config: TrialConfig, root: Path | None) -> tuple[Domain, Domain]:
    """Source and target domain, decoded; the first call decodes and later ones, in any process, map the same file.

    Raises:
        ValueError: folders, classes or images are not as they must be.
    """
    domains = [config.data.source, config.data.target]
    source, target = open_domains(
        config.data.benchmark, domains, root=root, resize=config.data.resize, corrupt=config.data.corrupt
    )
    return source, target


def run_trial(
    config: TrialConfig, execution: Execution, store: Store | None, progress: Progress | None = None
) -> Record:
    """Train one trial, go on from its checkpoint if the store has one, and leave a record.

    A trial that the store answers already is not trained again: its record is returned.

    A trial that fails leaves a record with its error and raises it; without a store nothing is written.

    Raises:
        ConfigError: the config names something that does not exist; no record is left, as nothing ran.
        Exception: whatever ended the training.
    """
    config = check_trial(config)
    inputs = trial_inputs(config, execution.root)
    trial_id = identity(config, inputs)
    answer = store.read_record(trial_id) if store else None
    if store and answer is not None and store.answers(trial_id, with_model=execution.keep_model):
        return answer
    started, began = now(), time.monotonic()
    device = find_device(execution.device)
    configure_torch(execution.threads)

    def record(wall_seconds: float, result: Result | None = None, failure: Failure | None = None) -> Record:
        facts = provenance(
            started=started, wall_seconds=wall_seconds, device=_describe(device), threads=execution.threads
        )
        status: Literal["done", "failed"] = "failed" if result is None else "done"
        return Record(
            id=trial_id, status=status, config=config, inputs=inputs, result=result, failure=failure, provenance=facts
        )

    try:
        checkpoint_path = store.checkpoint_path(trial_id) if store else None
        source, target = open_data(config, execution.root)
        result, seconds, student = train_on(
            config, source, target, device, checkpoint_path, execution.checkpoint_every, progress or Progress()
        )
    except Exception as error:
        if store is not None:
            store.write_record(record(time.monotonic() - began, failure=describe_failure(error)))
        raise
    finished = record(seconds, result=result)
    if store is not None:
        if execution.keep_model:
            _write_model(store.model_path(trial_id), student)
        store.write_record(finished)
    return finished


def train_on(
    config: TrialConfig,
    source: Domain,
    target: Domain,
    device: torch.device,
    checkpoint_path: Path | None = None,
    checkpoint_every: int = 500,
    progress: Progress | None = None,
) -> tuple[Result, float, Network]:
    """Train on two opened domains: result, seconds over all sessions, and the trained student.

    Here the target's labels part from its images: training gets the images, the evaluator alone gets the labels.
    """
    generators = partial(generator, config.seed)
    training, validation = hold_out(source, config.data.holdout, generators("hold_out", 0))
    if len(validation.labels) == 0:
        raise DataError(
            f"domain {source.name}: no class has two images, so none can be held out for source_val: add images"
        )
    num_classes = len(source.classes)
    batches = Batches(config, training, UnlabelledImages(target.images), num_classes, generators, device)
    labelled = LabelledImages(target.images, np.arange(len(target.labels)), target.labels)
    evaluator = Evaluator(labelled, validation, size=config.data.image_size, device=device)
    # channels_last: the layout in which convolutions are fastest, on CPU and GPU alike.
    method = build_method(config, num_classes, batches.steps_per_epoch)
    method.to(device).to(memory_format=torch.channels_last)
    trained = train(
        config,
        method,
        batches,
        evaluator,
        checkpoint_path=checkpoint_path,
        checkpoint_every=checkpoint_every,
        progress=progress or Progress(),
    )
    last = trained.curve[-1]
    result = Result(
        target_accuracy=last.target_accuracy,
        teacher_accuracy=last.teacher_accuracy,
        source_val_accuracy=last.source_val_accuracy,
        steps=last.step,
        curve=trained.curve,
        skipped={domain.name: list(domain.skipped) for domain in (source, target) if domain.skipped},
    )
    return result, trained.wall_seconds, method.student


def build_method(config: TrialConfig, num_classes: int, steps_per_epoch: int) -> Method:
    """The method with a freshly initialised student, a function of config and seed."""
    torch.manual_seed(step_seed(config.seed, "initialisation", 0))
    encoder = build_encoder(config.model.backbone, config.model.weights)
    student = Network(
        encoder, BACKBONES[config.model.backbone].feature_dim, num_classes, config.model, config.optim.precision
    )
    return METHODS[config.method](student, Setting(config, num_classes, steps_per_epoch))


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one.

    Raises:
        ConfigError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): write 'cpu' or 'auto'"
        ) from None
    return device


def configure_torch(threads: int) -> None:
    """Set the process up for training that is bit-equal from run to run."""
    torch.set_num_threads(threads)
    # cuBLAS needs this for deterministic products; it reads it when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before writing it; filling it first cost 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def describe_failure(error: BaseException) -> Failure:
    """An exception as a record keeps it."""
    text = "".join(traceback.format_exception(error))
    return Failure(kind=type(error).__name__, message=str(error), traceback=text)


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_model(path: Path, student: Network) -> None:
    """The student without its projection head, which prediction does not need."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_for_prediction().items()}
    with replacing(path) as file:
        file.write(safetensors.torch.save(state))
