"""scale-ray submit: a study to a service, or a command as a job of SLURM."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scale_ray.cli.console import console
from scale_ray.cli.slurm import SlurmOptions, submit_job
from scale_ray.config import ConfigError

SERVICE = "To a service"


@dataclasses.dataclass(frozen=True)
class ServiceOptions:
    """Which service, and how long this command stays."""

    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The service. Default: SCALE_RAY_SERVER, or http://127.0.0.1:8700.",
            rich_help_panel=SERVICE,
        ),
    ] = None
    wait: Annotated[
        bool, typer.Option("--wait", help="Show how far it is until it is over.", rich_help_panel=SERVICE)
    ] = False


def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY.json|COMMAND",
            help="The study, as POST /api/studies takes it. With --slurm, after --, a command such as ablate with its "
            "options, or a Python file with a study.",
            show_default=False,
        ),
    ],
    service: ServiceOptions,
    job: SlurmOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show its plan, or with --slurm the batch script; submit nothing.")
    ] = False,
) -> None:
    """Submit a study to a service, or with --slurm a command as a job of SLURM.

    A service's token comes from SCALE_RAY_TOKEN; the same file again changes nothing. The job goes on by itself where
    SLURM has ended it early.
    """
    if job.slurm:
        _refuse(service, "it is for a service: leave it out beside --slurm")
        submit_job(words, job, dry_run=dry_run)
        return
    _refuse(job, "it is for a job of SLURM: add --slurm")
    if len(words) > 1:
        raise ConfigError(f"{' '.join(words)}: give the one file STUDY.json, or add --slurm to submit a command")
    _submit_to_service(Path(words[0]), service, dry_run=dry_run)


def _refuse(options: Any, why: str) -> None:
    """Refuse options of this group that were given."""
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default:
            raise ConfigError(f"--{field.name.replace('_', '-')}: {why}")


def _submit_to_service(study: Path, service: ServiceOptions, *, dry_run: bool) -> None:
    from scale_ray.client import Client

    try:
        document = json.loads(study.read_text())
    except OSError as error:
        raise ConfigError(f"{study}: cannot be read ({error.strerror}): check the path") from None
    except ValueError as error:
        raise ConfigError(f"{study}: cannot be read as JSON ({error}): see docs/service.md for an example") from None
    client = Client(service.server)
    answer = {"plan": client.plan(document)} if dry_run else client.submit(document)
    plan = answer["plan"]
    console.print(plan["text"])
    if dry_run:
        return
    page = client.page(plan["name"])
    console.print(f"submitted: {page}" if answer["new"] else f"there already, {answer['study']['state']}: {page}")
    if not answer["new"] and answer["study"]["state"] in ("paused", "cancelled", "failed"):
        console.print("nothing was started: resume it, or try its failed cells again, on its page")
    if service.wait:
        _follow(client, plan["name"])


def _follow(client: Any, name: str) -> None:
    said = ""
    for found in client.follow(name):
        line = f"{found['state']}: {found['done']:,} of {found['cells']:,} done, {found['failed']:,} failed"
        if line != said:
            console.print(line if not found["problem"] else f"{line} ({found['problem']})")
            said = line
    if found["state"] != "done":
        raise typer.Exit(1)
