"""Every tracker: what it shows of a cell, live, by its record, and when it is sent again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import readers
from report_stores import cell_of, config_of, record_of

from scale_ray.cell import Cell
from scale_ray.records import Record
from scale_ray.track.content import Outcome, Run, metrics_of, outcome_of, run_of
from scale_ray.track.mlflow import Mlflow
from scale_ray.track.names import Names
from scale_ray.track.sending import send_report
from scale_ray.track.tracker import Tracker
from scale_ray.track.trackers import TRACKERS, open_trackers

STUDY = "study"
PNG = (  # 1 x 1
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)

# What a run's status is called.
DONE = {"mlflow": "FINISHED done"}
FAILED = {"mlflow": "FAILED failed", "tensorboard": "failed: RuntimeError: <b>loss</b> is nan\nat step 7"}
STOPPED = {"mlflow": "KILLED stopped"}


class Place(NamedTuple):
    """A tracker's own, empty place."""

    kind: str
    target: str

    def tracker(self) -> Tracker:
        """As a process of its own would open it."""
        (tracker,) = open_trackers([f"{self.kind}={self.target}"]).values()
        return tracker

    def shown(self, study: str = STUDY) -> list[tuple[str, readers.Shown]]:
        reader: readers.Reader = getattr(readers, self.kind)
        return reader(self.target, study)

    def only(self, study: str = STUDY) -> readers.Shown:
        ((_, shown),) = self.shown(study)
        return shown


@pytest.fixture(params=list(TRACKERS))
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    kind = request.param
    if kind == "mlflow":
        uri = request.getfixturevalue("mlflow_server")
        yield Place(kind, uri)
        _forget_experiments(uri)
    elif kind == "wandb":
        import wandb

        monkeypatch.setenv("WANDB_DIR", str(tmp_path))  # which wandb reads once
        wandb.teardown()
        yield Place(kind, "project")
        wandb.teardown()
    else:
        yield Place(kind, str(tmp_path / "events") if kind == "tensorboard" else tmp_path.parent.name + tmp_path.name)


def _forget_experiments(uri: str) -> None:
    """A name of an experiment is given once: those of this test are renamed."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for experiment in client.search_experiments():
        if experiment.name != "Default":
            client.rename_experiment(experiment.experiment_id, f"gone-{experiment.experiment_id}")


def told(record: Record, model: Callable[[], bytes | None] | None = None) -> tuple[Run, Outcome]:
    run = run_of(Cell(id=record.id, config=record.config, inputs=record.inputs), STUDY, Names([]))
    return run, outcome_of(record, run, model)


def wanted(outcome: Outcome) -> readers.Points:
    return sorted((name, step, value) for step, metrics in outcome.points.items() for name, value in metrics.items())


def nearly(points: readers.Points) -> list[tuple[str, int, object]]:
    """TensorBoard keeps single precision."""
    return [(name, step, pytest.approx(value, rel=1e-6)) for name, step, value in points]


RECORD = record_of(config_of("mnist", "mnistm", "ce+ssl", "lenet", 0), 61.25)
LIVE = [(step, {"target_accuracy": 61.25 * step / 600, "source_val_accuracy": 99.0}) for step in (0, 200, 400, 600)]


def test_a_record_is_one_run_with_its_curve_parameters_and_files(place: Place) -> None:
    run, outcome = told(RECORD, lambda: b"weights")
    tracker = place.tracker()
    tracker.end(run, outcome)
    tracker.close()
    ((cell, shown),) = place.shown()
    assert cell == RECORD.id
    assert shown.points == nearly(wanted(outcome))
    assert ("target_accuracy", 600, pytest.approx(61.25)) in shown.points
    assert shown.status == DONE.get(place.kind, "done")
    if place.kind != "wandb":  # whose artifacts are in its cache
        assert json.loads(shown.files["record.json"]) == json.loads(RECORD.to_json())
    if place.kind in ("mlflow", "trackio"):
        assert shown.files["model.safetensors"] == b"weights"
    assert str(shown.parameters["optim.steps"]) in ("600", "600.0")
    assert shown.parameters["losses.terms"] == "ce+ssl"
    assert shown.parameters["data.source"] == "mnist"
    if place.kind == "tensorboard":
        assert shown.name == "seed 0"
        assert shown.group == run.group
        assert "sha-mnistm" in shown.facts["facts"]
    else:
        assert (shown.name, shown.group) == ("mnist>mnistm ce+ssl lenet seed 0", run.group)
        facts = shown.parameters | shown.facts
        assert (facts["target_digest"], facts["host"], facts["git_commit"]) == ("sha-mnistm", "laptop", "0123abc")


def test_sent_again_it_is_the_same_run_with_the_same_points(place: Place) -> None:
    run, outcome = told(RECORD)
    for _ in range(2):
        tracker = place.tracker()
        tracker.end(run, outcome)
        tracker.close()
        assert place.tracker().marks(STUDY) == {RECORD.id: outcome.mark}
    assert place.only().points == nearly(wanted(outcome))


def test_a_live_run_that_is_interrupted_and_goes_on_has_no_point_twice(place: Place) -> None:
    """The second session starts from a checkpoint, and so evaluates a point again."""
    run, outcome = told(RECORD)
    first = place.tracker()
    first.begin(run)
    for step, metrics in LIVE[:3]:
        first.add(run, step, metrics)
    if place.kind != "wandb":  # which writes when it can
        seen = [(name, step) for name, step, _ in place.only().points if name == "target_accuracy"]
        assert seen == [("target_accuracy", step) for step in (0, 200, 400)]
    first.leave(run, "interrupted")
    first.close()
    assert place.tracker().marks(STUDY) == {}

    second = place.tracker()
    second.begin(run)
    for step, metrics in LIVE[2:]:
        second.add(run, step, metrics)
    second.end(run, outcome)
    second.close()
    shown = place.only()
    assert shown.points == nearly(wanted(outcome))
    assert shown.status == DONE.get(place.kind, "done")


def test_a_run_that_was_told_of_live_is_completed(place: Place) -> None:
    """What the last point and the record have beyond the live points comes with the record."""
    run, outcome = told(RECORD)
    tracker = place.tracker()
    tracker.begin(run)
    for point in RECORD.result.curve:
        tracker.add(run, point.step, metrics_of(point))
    tracker.end(run, outcome)
    tracker.close()
    shown = place.only()
    seconds = [name for name, _, _ in wanted(outcome) if name.startswith("seconds/")]
    assert [point for point in shown.points if point[0] not in seconds] == nearly(
        [point for point in wanted(outcome) if point[0] not in seconds]
    )
    if place.kind == "wandb":  # beside the curve
        assert shown.facts["seconds/wall"] == 36.0
    else:
        assert ("seconds/wall", 600, 36.0) in shown.points
    assert place.tracker().marks(STUDY) == {RECORD.id: outcome.mark}


def test_a_cell_that_was_trained_again_to_other_numbers_shows_these(place: Place) -> None:
    for accuracy in (50.0, 61.25):
        run, outcome = told(record_of(RECORD.config, accuracy))
        tracker = place.tracker()
        tracker.end(run, outcome)
        tracker.close()
    assert place.only().points == nearly(wanted(outcome))


def test_a_failure_shows_its_message_and_keeps_the_points_that_were_seen(place: Place) -> None:
    run, outcome = told(record_of(RECORD.config, None))
    tracker = place.tracker()
    tracker.begin(run)
    for step, metrics in LIVE[:2]:
        tracker.add(run, step, metrics)
    tracker.end(run, outcome)
    tracker.close()
    shown = place.only()
    assert shown.points == nearly(sorted((n, s, v) for s, metrics in LIVE[:2] for n, v in metrics.items()))
    assert shown.status == FAILED.get(place.kind, "failed")
    assert "RuntimeError: <b>loss</b> is nan" in json.dumps(shown.facts)

    run, outcome = told(RECORD)  # the next attempt
    tracker = place.tracker()
    tracker.end(run, outcome)
    tracker.close()
    shown = place.only()
    assert shown.points == nearly(wanted(outcome))
    assert shown.status == DONE.get(place.kind, "done")
    assert "loss</b> is nan" not in json.dumps(shown.facts)


def test_a_failure_that_nobody_has_seen_live_is_a_run_too(place: Place) -> None:
    run, outcome = told(record_of(RECORD.config, None))
    tracker = place.tracker()
    tracker.end(run, outcome)
    tracker.close()
    shown = place.only()
    assert shown.points == []
    assert shown.status == FAILED.get(place.kind, "failed")
    assert place.tracker().marks(STUDY) == {RECORD.id: outcome.mark}


def test_a_run_that_a_search_stops_says_so(place: Place) -> None:
    run, _ = told(RECORD)
    tracker = place.tracker()
    tracker.begin(run)
    tracker.add(run, *LIVE[0])
    tracker.leave(run, "stopped")
    tracker.close()
    assert place.only().status == STOPPED.get(place.kind, "stopped")


def test_a_target_without_labels_has_no_target_accuracy(place: Place) -> None:
    result = RECORD.result.model_copy(update={"target_accuracy": None, "teacher_accuracy": None})
    curve = [point.model_copy(update={"target_accuracy": None, "teacher_accuracy": None}) for point in result.curve]
    record = RECORD.model_copy(update={"result": result.model_copy(update={"curve": curve})})
    run, outcome = told(record)
    tracker = place.tracker()
    tracker.end(run, outcome)
    tracker.close()
    shown = place.only()
    assert {name for name, _, _ in shown.points} == {"source_val_accuracy", "loss/ce", "seconds/wall"}


ODD = ("café 1/2\\'s", "写真%<b>&'\"; DROP TABLE runs --" + "x" * 200)


def test_odd_names_and_numbers_are_no_obstacle(place: Place) -> None:
    losses = {"ce": float("nan"), "my term": 1.0, "höher+": 2.0}
    curve = [point.model_copy(update={"losses": losses}) for point in RECORD.result.curve]
    record = record_of(config_of(*ODD, "ce", "lenet", 3), 50.0)
    result = record.result.model_copy(update={"curve": curve, "classes": list(ODD)})
    record = record.model_copy(update={"result": result})
    run, outcome = told(record)
    tracker = place.tracker()
    tracker.begin(run)
    tracker.add(run, 0, metrics_of(curve[0]))
    tracker.end(run, outcome)
    tracker.close()
    ((cell, shown),) = place.shown()
    assert cell == record.id
    assert shown.parameters["data.source"] == ODD[0]
    assert len([name for name, _, _ in shown.points if name.startswith("loss/")]) == 2 * 4
    assert shown.group.endswith(run.digest)


def test_cells_on_several_targets_and_seeds_are_runs_of_their_own(place: Place) -> None:
    configs = [config_of("mnist", target, "ce", "lenet", seed) for target in ("mnistm", "fonts") for seed in (0, 1)]
    tracker, runs = place.tracker(), [told(record_of(config, 50.0 + seed))[0] for seed, config in enumerate(configs)]
    for run in runs:
        tracker.begin(run)
    for step in (0, 200):  # they train at the same time
        for run in runs:
            tracker.add(run, step, {"target_accuracy": 10.0 + run.seed + step})
    for seed, config in enumerate(configs):
        tracker.end(*told(record_of(config, 50.0 + seed)))
    tracker.close()
    shown = dict(place.shown())
    assert shown.keys() == {cell_of(config).id for config in configs}
    groups: dict[str, set[str]] = {}
    for run in runs:
        groups.setdefault(shown[run.cell].group, set()).add(shown[run.cell].name)
    assert sorted(map(len, groups.values())) == [2, 2]
    for seed, run in enumerate(runs):
        (last,) = [v for name, step, v in shown[run.cell].points if (name, step) == ("target_accuracy", 600)]
        assert last == pytest.approx(50.0 + seed)


def test_two_studies_in_one_place_do_not_mix(place: Place) -> None:
    """They have one cell in common, under different names."""
    tracker = place.tracker()
    other = record_of(config_of("fonts", "mnistm", "ce", "lenet", 0), 40.0)
    outcomes = {}
    for record, study in ((RECORD, "study"), (RECORD, "another"), (other, "another")):
        names = Names([], ["losses.threshold"] if study == "another" else [])
        run = run_of(Cell(id=record.id, config=record.config, inputs=record.inputs), study, names)
        outcomes[study, record.id] = outcome_of(record, run, None)
        tracker.end(run, outcomes[study, record.id])
    tracker.close()
    assert [cell for cell, _ in place.shown("study")] == [RECORD.id]
    assert sorted(cell for cell, _ in place.shown("another")) == sorted([RECORD.id, other.id])
    again = place.tracker()
    for study in ("study", "another"):
        marks = {cell: outcome.mark for (of, cell), outcome in outcomes.items() if of == study}
        assert dict(again.marks(study)) == marks
    again.close()


def test_two_drivers_that_end_a_cell_at_the_same_moment_show_it_once(place: Place) -> None:
    """Each has seen that it is not there, and sends it."""
    run, outcome = told(RECORD)
    one, two = place.tracker(), place.tracker()
    if isinstance(one, Mlflow) and isinstance(two, Mlflow):  # where the server names the runs
        one._create(run, 0.0)
        two._create(run, 0.0)
    for tracker in (one, two):
        tracker.end(run, outcome)
        tracker.close()
    assert place.only().points == nearly(wanted(outcome))


def test_a_report_is_shown_once_and_again_when_it_has_changed(place: Place) -> None:
    files = {"report.html": b"<p>first</p>", "figures/curves_lenet.png": PNG, "losses_by_backbone.md": b"| a |\n|---|"}
    for content, sent in ((b"<p>first</p>", True), (b"<p>first</p>", False), (b"<p>second</p>", True)):
        tracker = place.tracker()
        assert send_report(tracker, STUDY, files | {"report.html": content}) == sent
        tracker.close()
    ((cell, shown),) = place.shown()
    assert cell == "report"
    if place.kind in ("mlflow", "trackio"):
        assert shown.files["report.html"] == b"<p>second</p>"
    if place.kind != "wandb":
        assert shown.files["figures/curves_lenet.png"] == PNG
    else:
        assert any(name.startswith("media/images/") and name.endswith(".png") for name in shown.files)
