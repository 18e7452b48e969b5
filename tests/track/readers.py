"""What each tracker shows, read back by its own package, as far as that can."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Points = list[tuple[str, int, float]]  # (metric, step, value), sorted; twice where a tracker shows it twice


@dataclass
class Shown:
    """One run."""

    name: str = ""
    group: str = ""
    status: str = ""
    points: Points = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


Reader = Callable[[str, str], list[tuple[str, Shown]]]  # (target, study) -> (cell, what is shown), one a run


def tensorboard(target: str, study: str) -> list[tuple[str, Shown]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    found = []
    for folder in sorted({path.parent for path in (Path(target) / study).rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
        events.Reload()
        tags = events.Tags()
        shown = Shown(name=folder.name, group=folder.parent.name)
        for tag in tags["scalars"]:
            shown.points += [(tag, event.step, event.value) for event in events.Scalars(tag)]
        texts = {tag: events.Tensors(tag)[-1].tensor_proto.string_val for tag in tags["tensors"]}
        shown.facts = {tag: value[0].decode() for tag, value in texts.items() if value}
        shown.status = shown.facts.get("status", "")
        shown.files = {path.name: path.read_bytes() for path in folder.iterdir() if "tfevents" not in path.name}
        shown.files |= {f"{tag}.png": events.Images(tag)[-1].encoded_image_string for tag in tags["images"]}
        cell = "report"
        if "_hparams_/session_start_info" in tags["tensors"]:
            content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            session = parse_session_start_info_plugin_data(content)
            cell = session.group_name
            kinds = {name: value.WhichOneof("kind") for name, value in session.hparams.items()}
            shown.parameters = {name: getattr(session.hparams[name], kind) for name, kind in kinds.items()}
        shown.points.sort()
        found.append((cell, shown))
    return found


def mlflow(target: str, study: str) -> list[tuple[str, Shown]]:
    from mlflow import MlflowClient

    client, found = MlflowClient(target), []
    experiment = client.get_experiment_by_name(study)
    for run in [] if experiment is None else client.search_runs([experiment.experiment_id]):
        tags = run.data.tags
        shown = Shown(
            name=run.info.run_name,
            group=tags.get("group", ""),
            status=f"{run.info.status} {tags.get('scale_ray.status', '')}".strip(),
            parameters=dict(run.data.params),
            facts=dict(tags),
            files=dict(_mlflow_files(client, run.info.run_id)),
        )
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            shown.points += [(each.key, each.step, each.value) for each in history]
        shown.points.sort()
        found.append((tags["scale_ray.cell"], shown))
    return found


def _mlflow_files(client: Any, run: str, folder: str | None = None) -> Iterator[tuple[str, bytes]]:
    for item in client.list_artifacts(run, folder):
        if item.is_dir:
            yield from _mlflow_files(client, run, item.path)
        else:
            yield item.path, Path(client.download_artifacts(run, item.path)).read_bytes()


def wandb(target: str, study: str) -> list[tuple[str, Shown]]:
    """Of the folders of one run `wandb sync` takes the later ones over the earlier ones."""
    import wandb

    wandb.teardown()  # it writes some of it only now
    runs: dict[str, tuple[str, Shown]] = {}
    for path in sorted(Path(os.environ["WANDB_DIR"], "wandb").glob("offline-run-*/*.wandb")):
        shown, config = Shown(), dict[str, Any]()
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                assert record.run.project == target
                shown.name, shown.group = record.run.display_name, record.run.run_group
                config |= _updates(record.run.config)
            elif kind == "config":
                config |= _updates(record.config)
            elif kind == "history":
                items = {"/".join(each.nested_key) or each.key: each.value_json for each in record.history.item}
                step = int(items["_step"])
                named = {name: json.loads(value) for name, value in items.items() if not name.startswith("_")}
                shown.points += [(name, step, value) for name, value in named.items() if isinstance(value, float | int)]
            elif kind == "summary":
                summary = _updates(record.summary)
                shown.status = summary.get("status", shown.status)
                shown.facts |= summary
        shown.parameters = {name: value for name, value in flat(config).items() if name != "_wandb"}
        for file in (path.parent / "files").rglob("*"):
            if file.is_file():
                shown.files[file.relative_to(path.parent / "files").as_posix()] = file.read_bytes()
        shown.points.sort()
        told = config.get("scale_ray") or {"study": config["study"], "cell": config.get("cell", "report")}
        if told["study"] == study:
            runs[path.stem] = (told["cell"], shown)
    return list(runs.values())


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: protocol buffers in the log format of LevelDB, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:  # too little for a header: the block's end is empty
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def _updates(config: Any) -> dict[str, Any]:
    return {each.key or each.nested_key[0]: json.loads(each.value_json) for each in config.update}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def trackio(target: str, study: str) -> list[tuple[str, Shown]]:
    from trackio import cas
    from trackio.sqlite_storage import SQLiteStorage

    found = []
    configs = SQLiteStorage.get_all_run_configs(target)
    for run in SQLiteStorage.get_run_records(target):
        config = configs[run["id"]]
        shown = Shown(name=run["name"], group=config.get("_Group") or "", status=config.get("status", ""))
        shown.parameters, shown.facts = config, config
        for row in SQLiteStorage.get_logs(target, run["name"], run_id=run["id"]):
            numbers = {name: value for name, value in row.items() if name not in ("timestamp", "step")}
            shown.points += [(name, row["step"], value) for name, value in numbers.items()]
        for artifact in SQLiteStorage.get_run_artifacts(target, run["name"], run_id=run["id"])["output"]:
            stored = SQLiteStorage.get_artifact_manifest(target, artifact["name"], f"v{artifact['version']}")
            for entry in stored["manifest"]:
                shown.files[entry["path"]] = cas.blob_path(target, entry["digest"]).read_bytes()
        shown.points.sort()
        if config["study"] == study:
            found.append((config.get("cell", "report"), shown))
    return found
