"""TensorBoard: FOLDER/STUDY/GROUP/seed N holds the event files of one run, and its record beside them."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scale_ray.store.files import replace_file
from scale_ray.store.whole_files import prove_writable
from scale_ray.track.content import Outcome, Run
from scale_ray.track.tracker import REPORT, TrackError
from scale_ray.urls import is_url

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

_MARK = "scale_ray.json"  # beside the event files of a run that is complete
_MOST_BYTES = 200  # of a folder's name; file systems take 255

# Control characters, and what a folder's name cannot hold everywhere. The > of a pair stays: Windows alone refuses it.
_UNFIT = re.compile(r'[\x00-\x1f\x7f/\\:*?"|]')


class TensorBoard:
    """Event files below a folder, for `tensorboard --logdir FOLDER`.

    Args:
        target: the folder, made where it is missing.

    Raises:
        TrackError: the folder cannot be written to.
        ImportError: tensorboard is not installed.
    """

    def __init__(self, target: str):
        from tensorboard.summary.writer import event_file_writer  # noqa: F401 - an error now, not during a training

        if is_url(target):
            raise TrackError(f"tensorboard={target}: event files go to a folder of this machine: name one")
        self._folder = Path(target).expanduser().absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            prove_writable(self._folder)
        except OSError as error:
            raise TrackError(
                f"tensorboard={target}: cannot be written to ({error.strerror}): name another folder"
            ) from None
        self._writers: dict[str, EventFileWriter] = {}  # by the key of a run
        self._folders: dict[str, Path] = {}

    def marks(self, study: str) -> dict[str, str]:
        found = {}
        for path in (self._folder / _fit(study)).rglob(_MARK):
            with suppress(ValueError, KeyError):
                told = json.loads(path.read_text())
                found[told["cell"]] = told["mark"]
        return found

    def begin(self, run: Run) -> None:
        folder = self._folder_of(run)
        (folder / _MARK).unlink(missing_ok=True)

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        if run.key not in self._writers:
            writer = self._writers[run.key] = _writer(self._folder_of(run))
            _add(writer, _parameters(run))
            # An earlier session may have left points of later steps, which are evaluated again now.
            _restart(writer, step)
        _add(self._writers[run.key], _scalars(metrics), step)
        self._writers[run.key].flush()

    def leave(self, run: Run, reason: str) -> None:
        if (writer := self._writers.pop(run.key, None)) is not None:
            _add(writer, _text("status", reason))
            writer.close()

    def end(self, run: Run, outcome: Outcome) -> None:
        if (open_writer := self._writers.pop(run.key, None)) is not None:
            open_writer.close()
        folder = self._folder_of(run)
        if outcome.failure is None:  # the record has the whole curve; a failed training has what it has told
            _remove_events(folder)
        writer = _writer(folder)
        if outcome.failure is None:
            _restart(writer, 0)  # another driver may do the same now
        _add(writer, _parameters(run))
        status = "done" if outcome.failure is None else f"failed: {outcome.failure}"
        _add(writer, _text("status", status))
        _add(writer, _text("facts", _table({"cell": run.cell} | dict(run.facts) | dict(outcome.facts))))
        for step, metrics in outcome.points.items():
            _add(writer, _scalars(metrics), step, outcome.time_of(step))
        writer.close()
        replace_file(folder / "record.json", outcome.record)
        _write_mark(folder, run.cell, outcome.mark)

    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None:
        folder = self._folder / _fit(study) / REPORT
        _remove_events(folder)
        writer = _writer(folder)
        for name, content in files.items():
            if name.endswith(".png"):
                _add(writer, _image(name.removesuffix(".png"), content))
            elif name.endswith(".md"):
                _add(writer, _text(name.removesuffix(".md"), content.decode(errors="replace")))
        writer.close()
        _write_mark(folder, REPORT, mark)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _folder_of(self, run: Run) -> Path:
        """The run's folder: the one that there is, under whatever words, or a new one."""
        if run.key not in self._folders:
            study, end = self._folder / _fit(run.study), f" {run.digest}"
            there = (each for each in sorted(study.glob("*")) if each.name.endswith(end))
            group = next(there, study / f"{_fit(run.group.removesuffix(end))}{end}")
            self._folders[run.key] = group / f"seed {run.seed}"
        return self._folders[run.key]


def _fit(name: str) -> str:
    """The name as a folder can have it."""
    whole = _UNFIT.sub("_", name).encode("utf-8", errors="replace")
    return whole[:_MOST_BYTES].decode(errors="ignore").strip(". ") or "_"


def _write_mark(folder: Path, cell: str, mark: str) -> None:
    replace_file(folder / _MARK, json.dumps({"cell": cell, "mark": mark}).encode())


def _remove_events(folder: Path) -> None:
    (folder / _MARK).unlink(missing_ok=True)
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()


# Events


def _writer(folder: Path) -> "EventFileWriter":
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    return EventFileWriter(str(folder))


def _add(writer: "EventFileWriter", summary: "Summary", step: int = 0, at: float | None = None) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    writer.add_event(Event(wall_time=time.time() if at is None else at, step=step, summary=summary))


def _restart(writer: "EventFileWriter", step: int) -> None:
    """Make TensorBoard forget the points from this step on that stand in earlier files."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    writer.add_event(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))


def _scalars(metrics: Mapping[str, float]) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()])


def _text(name: str, text: str) -> "Summary":
    from tensorboard.plugins.text.summary_v2 import text_pb

    summary: Summary = text_pb(name, text)
    return summary


def _parameters(run: Run) -> "Summary":
    """For the page of hyperparameters."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    summary: Summary = hparams_pb(dict(run.parameters), trial_id=run.cell)
    return summary


def _image(name: str, png: bytes) -> "Summary":
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))  # of the PNG's header
    image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
    return Summary(value=[Summary.Value(tag=name, image=image)])


def _table(facts: Mapping[str, str]) -> str:
    """As Markdown, which TensorBoard shows."""
    rows = [f"| {name} | {value.replace('|', '/')} |" for name, value in facts.items()]
    return "\n".join(["| fact | value |", "|---|---|", *rows])
