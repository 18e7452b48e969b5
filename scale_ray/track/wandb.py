"""Weights & Biases: a run for each cell of a study in the project that is named, under the run's key.

A run that has shown every point of its record in order is completed. Any other one is sent whole under the same id, by
which Weights & Biases replaces it: it takes no point that comes late.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scale_ray.track.content import Outcome, Run, Value, in_folder
from scale_ray.track.tracker import REPORT, TrackError

if TYPE_CHECKING:
    from wandb import Run as WandbRun

_TOLD = "scale_ray"  # what a complete run has in its config, and in a file
_LONGEST_TAG = 64


@dataclass
class _Open:
    """A run that this session has begun, and the steps of the points that it has sent."""

    run: "WandbRun"
    steps: list[int] = field(default_factory=list)

    def shows(self, outcome: Outcome) -> bool:
        """Whether the run has the whole curve from this session."""
        return not self.run.resumed and self.steps == list(outcome.points)


class WandB:
    """Runs at Weights & Biases, or with WANDB_MODE=offline in the folder `wandb`, for `wandb sync`.

    Args:
        target: PROJECT or ENTITY/PROJECT.

    Raises:
        TrackError: the target is none.
        ImportError: wandb is not installed.
        Exception: whatever wandb raises where nobody is logged in, or nobody answers.
    """

    def __init__(self, target: str):
        import wandb

        entity, _, project = target.rpartition("/")
        if not project or "/" in entity:
            raise TrackError(f"wandb={target}: write wandb=PROJECT or wandb=ENTITY/PROJECT")
        logging.getLogger("wandb").propagate = False  # it has files of its own
        self._entity, self._project = entity or None, project
        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        self._api = None if offline else wandb.Api(timeout=20)  # asks who is logged in
        self._open: dict[str, _Open] = {}

    def marks(self, study: str) -> dict[str, str]:
        told = self._told_in_folders() if self._api is None else self._told_online()
        return {each["cell"]: each["mark"] for each in told if each["study"] == study}

    def begin(self, run: Run) -> None:
        if run.key not in self._open:
            self._open[run.key] = _Open(self._init(run, resume="allow"))

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        opened = self._open[run.key]
        opened.run.log(dict(metrics), step=step)
        opened.steps.append(step)

    def leave(self, run: Run, reason: str) -> None:
        opened = self._open.pop(run.key)
        opened.run.summary["status"] = reason
        opened.run.finish(exit_code=0 if reason == "stopped" else 1)

    def end(self, run: Run, outcome: Outcome) -> None:
        opened = self._open.pop(run.key, None)
        if opened is not None and outcome.failure is None and not opened.shows(outcome):
            opened.run.finish()
            opened = None
        if opened is None:
            opened = _Open(self._init(run, resume=None if outcome.failure is None else "allow"))
            for step, metrics in outcome.points.items():
                opened.run.log(dict(metrics), step=step)
        self._complete(opened.run, run, outcome)

    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None:
        import wandb

        number = sha256(study.encode()).hexdigest()[:32]
        with self._begun(f"{REPORT}-{number}", f"{REPORT} of {study}", study, {"study": study}, job=REPORT) as run:
            with in_folder({name: content for name, content in files.items() if name.endswith(".png")}) as folder:
                run.log({path.stem: wandb.Image(str(path)) for path in sorted(folder.rglob("*.png"))})
            self._attach(run, f"{REPORT}-{number}", REPORT, files)
            self._tell(run, study, REPORT, mark)

    def close(self) -> None:
        for opened in self._open.values():
            opened.run.finish(exit_code=1)
        self._open.clear()

    def _init(self, run: Run, resume: Any) -> "WandbRun":
        config = {**_nested(run.parameters), "cell": run.cell, "study": run.study, **run.facts, _TOLD: None}
        return self._begun(run.key, run.name, run.study, config, group=run.group, resume=resume)

    def _begun(
        self, number: str, name: str, study: str, config: dict[str, Any], job: str = "train", **more: Any
    ) -> "WandbRun":
        import wandb

        return wandb.init(
            entity=self._entity,
            project=self._project,
            id=number,
            name=name,
            job_type=job,
            tags=[study[:_LONGEST_TAG]],
            config=config,
            reinit="create_new",  # several cells train at a time
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=30,
                x_disable_stats=True,  # of the driver, which does not train
                x_disable_meta=True,  # its command line and its host; the facts name where the cell was trained
                x_save_requirements=False,
                disable_git=True,
                save_code=False,
            ),
            **more,
        )

    def _complete(self, opened: "WandbRun", run: Run, outcome: Outcome) -> None:
        status = "done" if outcome.failure is None else "failed"
        last = outcome.points[max(outcome.points)] if outcome.points else {}
        opened.summary.update({"status": status, **last})
        opened.config.update(dict(outcome.facts), allow_val_change=True)
        if outcome.failure is not None:
            opened.summary["failure"] = outcome.failure
        self._attach(opened, f"cell-{run.key}", "cell", outcome.files())
        self._tell(opened, run.study, run.cell, outcome.mark)
        opened.finish(exit_code=0 if outcome.failure is None else 1)

    def _attach(self, run: "WandbRun", name: str, kind: str, files: Mapping[str, bytes]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        with in_folder(files) as folder:
            for file in files:  # `add_dir` prints
                artifact.add_file(str(folder / file), name=file, policy="mutable")  # copied now
        run.log_artifact(artifact)

    def _tell(self, run: "WandbRun", study: str, cell: str, mark: str) -> None:
        """Leave what says that the run is complete: in the config for the server, in a file for a folder."""
        told = {"project": self._project, "study": study, "cell": cell, "mark": mark}
        run.config.update({_TOLD: told}, allow_val_change=True)
        path = Path(run.dir) / f"{_TOLD}.json"
        path.write_text(json.dumps(told))
        run.save(str(path), base_path=run.dir, policy="now")

    def _told_online(self) -> list[dict[str, str]]:
        assert self._api is not None
        self._api.flush()  # it keeps what it was told before
        path = "/".join(filter(None, (self._entity, self._project)))
        try:
            return [run.config[_TOLD] for run in self._api.runs(path, lazy=False) if run.config.get(_TOLD)]
        except ValueError:  # there is no such project yet
            return []

    def _told_in_folders(self) -> list[dict[str, str]]:
        import wandb

        folders = Path(wandb.setup().settings.wandb_dir).glob(f"offline-run-*/files/{_TOLD}.json")
        told: list[dict[str, str]] = [json.loads(path.read_text()) for path in sorted(folders)]
        return [each for each in told if each["project"] == self._project]


def _nested(parameters: Mapping[str, Value]) -> dict[str, Any]:
    """Parameters by parts, as Weights & Biases wants them: it shows them by their dotted paths."""
    found: dict[str, Any] = {}
    for path, value in parameters.items():
        *parents, name = path.split(".")
        part = found
        for parent in parents:
            part = part.setdefault(parent, {})
        part[name] = value
    return found
