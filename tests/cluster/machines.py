"""Machines of namespaces on this one: a laptop, at which somebody sits, and a head and a worker beside it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NAMESPACES = ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--mount", "--uts", "--kill-child"]


class Laptop:
    """Where somebody sits.

    Args:
        folder: on the disk that the machines share.
        process: one of the laptop's, by its id on this machine.
        environment: further variables of commands.
        workplace: the folder in which commands run.
    """

    def __init__(self, folder: Path, process: int, environment: dict[str, str], workplace: Path = REPOSITORY):
        self.folder = folder
        self._environment = environment
        self._enter = ["nsenter", f"--target={process}", "--pid", "--net", "--mount", "--uts", f"--wd={workplace}"]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command; standard error goes with its output."""
        return subprocess.Popen(
            [*self._enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "HOME": str(self.folder / "laptop"),
                "PATH": f"{Path(sys.prefix) / 'bin'}:{os.defpath}:/usr/sbin",
                "RAY_USAGE_STATS_ENABLED": "0",
                "TERM": "dumb",
                "TMPDIR": str(self.folder / "laptop"),
                **self._environment,
            },
        )

    def run(self, *command: str) -> str:
        """The output of a command, which must succeed."""
        with self.start(*command) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, f"{' '.join(command)}\n{output}"
        return output


def skip_without(*programs: str, debian: str) -> None:
    """Skip where there can be no such machines.

    Args:
        programs: what the machines need besides.
        debian: the packages that have these.
    """
    if os.geteuid() != 0:
        pytest.skip("only root makes namespaces with servers in them")
    for program in ("unshare", "nsenter", "ip", *programs):
        if shutil.which(program, path=f"{os.defpath}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed (Debian: util-linux, iproute2, {debian})")
    trial = subprocess.run(
        [*NAMESPACES, "ip", "link", "add", "bridge", "type", "bridge"], capture_output=True, text=True, check=False
    )
    if trial.returncode:
        pytest.skip(f"no namespaces with a network are to be had: {trial.stderr.strip()}")


@contextmanager
def machines(folder: Path, serve: str, port: int) -> Iterator[int]:
    """Such machines, whose servers a script beside this file starts; gives the id of a process of the laptop.

    Args:
        folder: see machines.sh.
        serve: name of the script, without `.sh`.
        port: at which head and worker listen.
    """
    script = Path(__file__).with_suffix(".sh")
    with subprocess.Popen(
        [*NAMESPACES, "bash", str(script), str(folder), serve, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as namespace:
        try:
            assert namespace.stdout is not None
            assert namespace.stdout.readline() == "ready\n"
            first = Path(f"/proc/{namespace.pid}/task/{namespace.pid}/children").read_text()
            yield int(first)
        finally:
            namespace.kill()
