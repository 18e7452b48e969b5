"""trackio: a run for each cell of a study in this machine's project of that name; `trackio sync` brings it to a Space.

Rows are written by trackio's own storage under names of ours, because it takes a row of the same name once.
`trackio.log` names every row anew, so a point that is sent again would stand there twice.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from scale_ray.track.content import Outcome, Run, in_folder
from scale_ray.track.tracker import REPORT, TrackError

# Where trackio itself would send runs to, instead of this machine's folder.
_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio:
    """Runs in trackio's folder on this machine: TRACKIO_DIR, or its usual one.

    Args:
        target: PROJECT.

    Raises:
        TrackError: the project's name is none for trackio, or trackio is set to send runs elsewhere.
        ImportError: trackio is not installed.
    """

    def __init__(self, target: str):
        from trackio.sqlite_storage import SQLiteStorage

        if named := [name for name in _ELSEWHERE if os.environ.get(name)]:
            raise TrackError(
                f"trackio={target}: runs go to this machine's folder, and {named[0]} names another place: unset it, "
                "and bring the project there with `trackio sync`"
            )
        try:
            SQLiteStorage.validate_project_name(target)
        except ValueError as error:
            raise TrackError(f"trackio={target}: {error}") from None
        self._storage, self._project = SQLiteStorage, target

    def marks(self, study: str) -> dict[str, str]:
        configs = self._storage.get_all_run_configs(self._project)
        of_study = [config for config in configs.values() if config.get("study") == study]
        found = {config["cell"]: config["mark"] for config in of_study if {"cell", "mark"} <= config.keys()}
        report = configs.get(_report_of(study), {})
        return found | ({REPORT: report["mark"]} if report else {})

    def begin(self, run: Run) -> None:
        self._describe(run, {"status": "running"})

    def add(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._add(run, {step: metrics}, {step: datetime.now(UTC).isoformat()})

    def leave(self, run: Run, reason: str) -> None:
        self._describe(run, {"status": reason})

    def end(self, run: Run, outcome: Outcome) -> None:
        facts = {**outcome.facts, "mark": outcome.mark}
        if outcome.failure is None:  # the record has the whole curve; a failed training has what it has told
            self._storage.delete_run(self._project, run.name, run_id=run.key)
            facts["status"] = "done"
        else:
            facts |= {"status": "failed", "failure": outcome.failure}
        times = {step: datetime.fromtimestamp(outcome.time_of(step), UTC).isoformat() for step in outcome.points}
        self._add(run, outcome.points, times)
        self._attach(f"cell-{run.key}", "cell", outcome.files(), run.name, run.key)
        self._describe(run, facts)

    def show_report(self, study: str, files: Mapping[str, bytes], mark: str) -> None:
        name, number = f"{REPORT} of {study}", _report_of(study)
        self._attach(number, REPORT, files, name, number)
        self._config(name, number, {"study": study, "mark": mark})

    def close(self) -> None:
        """Nothing: every row was written when it was sent."""

    def _describe(self, run: Run, facts: Mapping[str, str]) -> None:
        told = {**run.parameters, "cell": run.cell, "study": run.study, **run.facts, **facts, "_Group": run.group}
        self._config(run.name, run.key, told)

    def _config(self, name: str, number: str, config: dict[str, Any]) -> None:
        """Replace a run's config, which trackio takes beside a row; this one is empty, and there once."""
        self._storage.bulk_log(self._project, name, [{}], [0], config=config, log_ids=[f"{number}:"], run_id=number)

    def _add(self, run: Run, points: Mapping[int, Mapping[str, float]], times: Mapping[int, str]) -> None:
        self._storage.bulk_log(
            self._project,
            run.name,
            [dict(metrics) for metrics in points.values()],
            list(points),
            timestamps=[times[step] for step in points],
            log_ids=[f"{run.key}:{step}" for step in points],
            run_id=run.key,
        )

    def _attach(self, name: str, kind: str, files: Mapping[str, bytes], run: str, number: str) -> None:
        from trackio import Artifact

        artifact = Artifact(name=name, type=kind)
        with in_folder(files) as folder:
            artifact.add_dir(folder)
            manifest = artifact._build_manifest(self._project)
        self._storage.commit_artifact_version(
            project=self._project,
            name=name,
            type=kind,
            description=None,
            manifest=manifest,
            metadata=None,
            aliases=None,
            run_name=run,
            run_id=number,
        )


def _report_of(study: str) -> str:
    return f"{REPORT}-{sha256(study.encode()).hexdigest()[:32]}"
