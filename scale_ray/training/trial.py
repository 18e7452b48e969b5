"""One TrialConfig goes in, one Record comes out: with Ray or without."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from scale_ray.cell import Cell
from scale_ray.config import Execution, TrialConfig
from scale_ray.data.batches import Batches, Images, LabelledImages, UnlabelledImages, hold_out
from scale_ray.data.benchmarks import DataError
from scale_ray.data.decoded import Domain
from scale_ray.data.feature_views import views_of
from scale_ray.data.work import heard
from scale_ray.methods import Method
from scale_ray.methods.function import Fitted, TrainingData
from scale_ray.models import BACKBONES, build_encoder
from scale_ray.models.network import pooled
from scale_ray.records import Record, Result, Runner, now, provenance
from scale_ray.stage import Stage
from scale_ray.store import Store, StoredPredictions
from scale_ray.timm_names import is_timm
from scale_ray.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    NoCheckpoints,
    State,
    StoreCheckpoints,
    from_bytes,
    to_bytes,
)
from scale_ray.training.evaluation import Evaluator
from scale_ray.training.failures import leaving_failures
from scale_ray.training.features import open_inputs
from scale_ray.training.loop import Progress, Trained, seconds_a_step, train
from scale_ray.training.resolve import forget_inputs, refuse_changed_weights, resolve
from scale_ray.training.seeding import generator, step_seed
from scale_ray.training.setup import (
    build_method,
    check_workers,
    configure_torch,
    describe_device,
    find_device,
    move_to_device,
)
from scale_ray.training.stages import alone
from scale_ray.workers import Workers

logger = logging.getLogger(__name__)


def run_trial(
    config: TrialConfig,
    execution: Execution,
    store: Store | None,
    progress: Progress | None = None,
    begun: Callable[[Cell], None] = lambda cell: None,
) -> Record:
    """Train one trial, go on from its checkpoint if the store has one, and leave a record.

    A trial that the store answers already is not trained again: its record is returned. One that fails leaves a record
    with its error and raises it; without a store nothing is written.

    Args:
        begun: called with the cell before anything of it is trained.

    Raises:
        ConfigError: the config names something that does not exist; no record is left, as nothing ran.
        Exception: whatever ended the training.
    """
    forget_inputs()
    cell = resolve(config, execution.root)
    begun(cell)
    answer = store.read_record(cell.id) if store else None
    if store and answer is not None and store.answers(cell.id, beside=execution.beside):
        return answer
    with leaving_failures(alone(cell), execution, store):
        (record,) = run_stage(alone(cell), execution, store, progress)
    return record


def run_stage(
    stage: Stage,
    execution: Execution,
    store: Store | None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    runner: Runner = "process",
) -> list[Record]:
    """Train one stage; leave the records of the cells that end in it, or else its state for the stages after it.

    Every worker of the process group calls it; the first leaves what is left.

    Args:
        checkpoints: where the unfinished training is kept; by default in the store.
        runner: who called, for the record.

    Raises:
        Exception: whatever ended the training.
    """
    started = now()
    device = find_device(execution.device)
    configure_torch(execution.threads)
    if checkpoints is None:
        every = execution.checkpoint_every
        checkpoints = StoreCheckpoints(store, stage.key, every) if store else NoCheckpoints()
    progress = progress or Progress()
    progress.on_life()
    with heard(progress.on_life):
        source, targets = open_inputs(stage, execution, store)
    training = Training(stage.config, source, targets, device, execution)
    refuse_changed_weights(stage)  # again, as they have been read only now
    progress.on_life()
    if not training.method.learns:  # what does not learn by steps may take any time
        progress.on_rest()
    start = _parents_state(stage, store, training.method, device)
    trained = training.run(checkpoints, progress, last=stage.last, start=start, cells=len(stage.waiting))
    refuse_changed_weights(stage)  # a validator may have read them once more
    facts = provenance(
        started=started,
        wall_seconds=sum(seconds for seconds, _, _ in trained.spent),
        charged_seconds=sum(seconds / cells for seconds, cells, _ in trained.spent),
        evaluation_seconds=sum(evaluating for _, _, evaluating in trained.spent),
        shared_steps=stage.last if len(stage.ends) > 1 else stage.first,
        runner=runner,
        workers=training.workers.size,
        backend=training.workers.backend,
        device=describe_device(device),
        threads=execution.threads,
    )
    records = []
    for cell in stage.ends:
        result = _result(trained, source, targets[cell.config.data.target])
        records.append(
            Record(id=cell.id, status="done", config=cell.config, inputs=cell.inputs, result=result, provenance=facts)
        )
    # All workers predict together.
    probabilities = training.probabilities(progress) if execution.keep_predictions and stage.ends else {}
    keep = training.method.student.heads_alone if execution.keep_model is None else execution.keep_model
    models = {cell.id: training.model(cell, source.classes) for cell in stage.ends} if keep else {}
    if store is not None and training.workers.is_first:
        _leave(stage, trained, records, models, probabilities, store)
    return records


class Training:
    """One method, its batches and its evaluator on opened domains.

    Here the target's labels part from its images: training gets the images of the config's target, the evaluator alone
    gets the labels.

    Args:
        config: what is trained.
        source: labelled domain.
        targets: the domains to measure on, the config's target among them.
        device: where models and batches live.
        execution: how models are laid out and run.

    Raises:
        ConfigError: the processes that train here are not those that the config asks for.
        DataError: the source has no image to hold out.
    """

    def __init__(
        self,
        config: TrialConfig,
        source: Domain,
        targets: Mapping[str, Domain],
        device: torch.device,
        execution: Execution | None = None,
    ):
        self.workers = workers = Workers.current()
        check_workers(config, workers, device)
        generators = partial(generator, config.seed)
        training, validation = hold_out(source, config.data.holdout, generators("hold_out", 0))
        if len(validation.labels) == 0:
            raise DataError(
                f"domain {source.name}: no class has two images, so none can be held out for source_val: add images"
            )
        num_classes = len(source.classes)
        unlabelled = UnlabelledImages(targets[config.data.target].images)
        measured = {name: _measured(domain) for name, domain in targets.items()}
        self._config = config
        self._data = TrainingData(config, tuple(source.classes), training, unlabelled, device)
        self._batches = Batches(config, training, unlabelled, num_classes, generators, device, workers)
        self._evaluator = Evaluator(
            measured,
            validation,
            training,
            num_classes=num_classes,
            size=config.data.image_size,
            view=views_of(config.model).evaluation,
            device=device,
            common=_first_features(config, device),
            whole_statistics=config.model.target_statistics == "whole",
            workers=workers,
        )
        self.method = build_method(
            config,
            num_classes,
            self._batches.steps_per_epoch,
            workers,
            source.classes,
            self._batches.target_images,
        )
        move_to_device(self.method, device, execution or Execution())

    def run(
        self,
        checkpoints: Checkpoints | None = None,
        progress: Progress | None = None,
        *,
        last: int | None = None,
        start: State | None = None,
        cells: int = 1,
    ) -> Trained:
        """Train; the arguments are those of `loop.train`."""
        began = time.monotonic()
        if isinstance(self.method, Fitted):
            torch.manual_seed(step_seed(self._config.seed, "function", 0))
            self.method.fit(self._data)
        return train(
            self._config,
            self.method,
            self._batches,
            self._evaluator,
            checkpoints=checkpoints or NoCheckpoints(),
            progress=progress or Progress(),
            last=last,
            start=start,
            cells=cells,
            seconds=time.monotonic() - began,
        )

    def seconds_a_step(self, least_seconds: float, least_steps: int) -> float:
        """See `loop.seconds_a_step`; this training is of no further use."""
        return seconds_a_step(self._config, self.method, self._batches, least_seconds, least_steps)

    def model(self, cell: Cell, classes: Sequence[str]) -> bytes:
        """The student as it predicts a cell's target, without its projection head, which prediction does not need.

        All workers call it together. The file's metadata say what it is.
        """
        about = {"record": cell.id, "classes": list(classes), "config": cell.config.model_dump(mode="json")}
        with self._evaluator.ready_for(self.method.student, cell.config.data.target):
            state = self.method.student.state_for_prediction()
            tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
            # One entry: safetensors writes several in any order, and the same model is the same file.
            return safetensors.torch.save(tensors, {"scale_ray": json.dumps(about)})

    def probabilities(self, progress: Progress) -> dict[str, Tensor]:
        """The student's class probabilities (N, K) of the images of every target domain, in order."""
        return self._evaluator.probabilities(self.method.student, progress.on_life)


def _first_features(config: TrialConfig, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """Makes pooled features (B, D) of the encoder with its first weights from a stored batch; None if it has none."""
    model, size = config.model, config.data.image_size
    view = partial(views_of(model).survey, size=size)
    if model.encoder == "frozen":
        return view
    if model.weights == "none" or not (model.backbone in BACKBONES or is_timm(model.backbone)):
        return None  # CLIP has two encoders

    @cache
    def encoder() -> torch.nn.Module:  # built when it is first asked for, which is after the training
        return build_encoder(model.backbone, model.weights, size).to(device).eval()

    return lambda stored: pooled(encoder()(view(stored))).float()


def _measured(domain: Domain) -> Images:
    """The whole domain, with its labels where it has any."""
    places = np.arange(len(domain.images))
    return (
        Images(domain.images, places) if domain.labels is None else LabelledImages(domain.images, places, domain.labels)
    )


def _parents_state(stage: Stage, store: Store | None, method: Method, device: torch.device) -> State | None:
    """What the stage before this one left, reduced to what this method keeps.

    None where this stage starts afresh; also where the state is gone or damaged: then its steps are trained again.
    """
    if stage.parent is None or store is None:
        return None
    content = store.read_stage(stage.parent)
    if content is None:
        return None
    try:
        state = from_bytes(content, stage.parent, store.stage_location(stage.parent), device)
    except CheckpointError as error:
        logger.warning("%s: it is deleted, and its steps are trained again", error)
        store.delete_stage(stage.parent)
        return None
    state["method"] = {name: state["method"][name] for name in method.state_dict()}
    if method.teacher is None:
        for point in state["points"]:
            point["accuracies"] |= {"teacher": None, "agreement": {}}
    return state


def _result(trained: Trained, source: Domain, target: Domain) -> Result:
    curve = [point.on(target.name) for point in trained.points]
    last = curve[-1]
    return Result(
        target_accuracy=last.target_accuracy,
        teacher_accuracy=last.teacher_accuracy,
        source_val_accuracy=last.source_val_accuracy,
        steps=last.step,
        curve=curve,
        classes=list(source.classes),
        validators=last.validators,
        confusion=trained.points[-1].accuracies.confusion.get(target.name, []),
        predicted=trained.points[-1].accuracies.predicted[target.name],
        agreement=last.agreement,
        skipped={domain.name: list(domain.skipped) for domain in (source, target) if domain.skipped},
        images={domain.name: len(domain.images) for domain in (source, target)},
    )


def _leave(
    stage: Stage,
    trained: Trained,
    records: list[Record],
    models: Mapping[str, bytes],
    probabilities: Mapping[str, Tensor],
    store: Store,
) -> None:
    """What lies beside a record before it, results before the checkpoint goes: killed anywhere, nothing is lost."""
    if not stage.ends:
        store.write_stage(stage.key, to_bytes(trained.state, stage.key))
    for record in records:
        if models:
            store.write_model(record.id, models[record.id])
        if probabilities:
            assert record.result is not None
            of_target = probabilities[record.config.data.target].numpy()
            found = StoredPredictions.of(of_target, record.result.classes, record.inputs["target"])
            store.write_predictions(record.id, found)
        store.write_record(record)  # which deletes the checkpoint of that name
    if stage.key not in {record.id for record in records}:
        store.delete_checkpoint(stage.key)
