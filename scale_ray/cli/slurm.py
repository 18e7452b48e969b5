"""A command as a job of SLURM: cluster/slurm.sbatch with its directives and the command filled in, given to sbatch."""

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from scale_ray.cli.console import console, stderr
from scale_ray.cli.shipped import shipped
from scale_ray.config import ConfigError
from scale_ray.store.files import replace_file
from scale_ray.urls import is_url

SLURM = "As a job of SLURM"

# The job sets these itself.
_OF_THE_JOB = ("--address", "--local", "--dry-run")

# File systems that one machine alone sees, unless it exports them.
_OWN_DISK = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "vfat", "xfs", "zfs"}

_WRITTEN = "# Written by `scale-ray submit --slurm`; docs/slurm.md says how it works."


@dataclasses.dataclass(frozen=True)
class SlurmOptions:
    """What the job asks for. Where nothing is given, cluster/slurm.sbatch decides."""

    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit COMMAND as a job, with sbatch.", rich_help_panel=SLURM)
    ] = False
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Nodes, which become one Ray cluster. Default: 1.", rich_help_panel=SLURM
        ),
    ] = None
    array: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="N such jobs, each with a Ray of its own, that divide the cells among them.",
            rich_help_panel=SLURM,
        ),
    ] = None
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Longest time until it goes back into the queue. Default: 04:00:00.",
            rich_help_panel=SLURM,
        ),
    ] = None
    partition: Annotated[str | None, typer.Option(metavar="NAME", rich_help_panel=SLURM)] = None
    gpus_per_node: Annotated[
        str | None, typer.Option(metavar="[TYPE:]N", help="As in 4, or a100:4.", rich_help_panel=SLURM)
    ] = None
    cpus_per_task: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPUs of each node. Default: 4.", rich_help_panel=SLURM)
    ] = None
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=VALUE]",
            help="Any other option of sbatch: account=mine, exclusive. Repeat it.",
            rich_help_panel=SLURM,
        ),
    ] = None

    @property
    def directives(self) -> dict[str, str | None]:
        """Option of sbatch -> value, None where it takes none, of those that were given.

        Raises:
            ConfigError: one that no batch script can hold.
        """
        named = {
            field.name.replace("_", "-"): str(value)
            for field in dataclasses.fields(self)
            if field.name not in ("slurm", "sbatch") and (value := getattr(self, field.name)) is not None
        }
        if self.array is not None:
            named |= {"array": f"1-{self.array}", "output": "%x-%A_%a.log"}
        others: dict[str, str | None] = {}
        for text in self.sbatch or ():
            name, equals, value = text.removeprefix("--").partition("=")
            if not re.fullmatch(r"[a-z][a-z-]*", name):
                raise ConfigError(f"--sbatch {text!r}: write NAME=VALUE or NAME, as in account=mine or exclusive")
            others[name] = value if equals else None
        if broken := [value for value in (*named.values(), *others.values()) if value and not value.isprintable()]:
            raise ConfigError(f"{broken[0]!r}: a directive is one line: leave out what breaks it")
        return {**named, **others}


def submit_job(words: Sequence[str], job: SlurmOptions, *, dry_run: bool) -> None:
    """Write the batch script into the current folder and give it to sbatch; in a dry run, print it.

    Raises:
        ConfigError: the command is none that a job can run, or SLURM does not take the job.
    """
    store = _store_of(words)
    directives = {**_directives(_template()), "job-name": _job_name(store or words[0]), **job.directives}
    script = job_script(words, directives)
    if store is not None and (kind := _own_disk(store)):
        stderr.print(f"warning: --store {store} is on {kind}: every node must see it at this path")
    if dry_run:
        print(script, end="")
        return
    if shutil.which("sbatch") is None:
        raise ConfigError("no sbatch on this machine: run this where you submit jobs, or print the script: --dry-run")
    name = directives["job-name"] or ""
    job_id = _give_to_sbatch(_write(Path(f"{name}.sbatch"), script))
    log = (directives["output"] or "").replace("%x", name).replace("%a", "1")
    console.print(f"submitted: job {job_id}, by {name}.sbatch; to follow it:")
    console.print_command(f"squeue --job {job_id}")
    console.print_command(f"tail -F {shlex.quote(re.sub('%[Aj]', job_id, log))}")
    if store is not None:
        console.print_command(f"scale-ray status {shlex.quote(store)} --watch")
    console.print(f"`scancel {job_id}` ends it; what is trained is kept, and submitting it again goes on")


def job_script(words: Sequence[str], directives: Mapping[str, str | None]) -> str:
    """The batch script of a command, which runs in the environment that this process runs in."""
    given = {name: "" if value is None else f"={shlex.quote(value)}" for name, value in directives.items()}
    lines = [f"#SBATCH --{name}{value}" for name, value in given.items()]
    *_, body = re.split(r"^#SBATCH .*\n", _template(), flags=re.MULTILINE)
    environment = shlex.quote(str(Path(sys.executable).parent))
    return "\n".join(
        ["#!/bin/bash", _WRITTEN, *lines, "", f"export PATH={environment}:$PATH", f"set -- {shlex.join(words)}", body]
    )


def _job_name(of: str) -> str:
    """What the job is called after a store, or after the file or command that has one of its own."""
    name = of.rstrip("/").rpartition("/")[2] if is_url(of) else Path(of).absolute().name
    return re.sub(r"[^\w.-]", "_", name.removesuffix(".py")) or "scale-ray"


def _template() -> str:
    return shipped("cluster/slurm.sbatch").read_text()


def _directives(script: str) -> dict[str, str | None]:
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {name: value or None for name, value in found}


def _store_of(words: Sequence[str]) -> str | None:
    """The store of a command that a job can run; None where only the command itself knows it.

    Raises:
        ConfigError: it trains nothing into a store on Ray, or has an option that is the job's.
        typer.TyperException: its options cannot be read.
    """
    from scale_ray.cli import app

    name, *options = words
    for word in options:
        if word.partition("=")[0] in _OF_THE_JOB:
            raise ConfigError(f"{word} in the command: the job decides that: leave it out")
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ConfigError(f"{name}: no such file: check the path")
        return _given(options)
    if name == "run":
        return _given(options)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    fit = [each for each, command in commands.items() if {"store", "address"} <= {one.name for one in command.params}]
    if name not in fit:
        raise ConfigError(
            f"{name}: no command that trains on Ray into a --store: give {', '.join(fit)}, run, or a Python file with "
            "a study"
        )
    return str(commands[name].make_context(f"scale-ray {name}", options).params["store"])


def _given(options: Sequence[str]) -> str | None:
    """The value of --store."""
    for word, following in zip(options, [*options[1:], None], strict=True):
        if word == "--store":
            return following
        if word.startswith("--store="):
            return word.partition("=")[2]
    return None


def _own_disk(store: str) -> str:
    """The kind of file system that a folder is on, where only this machine sees such a one; else empty."""
    if is_url(store):
        return ""
    import psutil

    path = Path(store).expanduser().absolute()
    mounts = {each.mountpoint: each.fstype for each in psutil.disk_partitions(all=True)}
    kind = next((mounts[str(folder)] for folder in (path, *path.parents) if str(folder) in mounts), "")
    return kind if kind in _OWN_DISK else ""


def _write(file: Path, script: str) -> Path:
    """Write the script where nothing is, or one that an earlier submission wrote."""
    if file.is_file() and _WRITTEN.encode() not in file.read_bytes():
        raise ConfigError(f"{file}: is there, and no earlier submission wrote it: move it, or give --sbatch job-name=…")
    replace_file(file, script.encode())
    return file


def _give_to_sbatch(file: Path) -> str:
    """Submit a script; return the job's id."""
    done = subprocess.run(["sbatch", "--parsable", file], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("sbatch: error: ")
        raise ConfigError(f"sbatch does not take {file}: {reason or f'exit status {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]
