"""scale-ray submit --slurm: the batch script, and what is refused. tests/cluster/test_slurm.py has a real SLURM."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import command, refused

from scale_ray import cli
from scale_ray.cli.shipped import shipped
from scale_ray.cli.slurm import _own_disk

ABLATE = ["ablate", "--benchmark", "digits", "--store", "runs/digits"]

HEADER = f"""\
#!/bin/bash
# Written by `scale-ray submit --slurm`; docs/slurm.md says how it works.
#SBATCH --job-name=digits
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --array=1-3
#SBATCH --partition=gpu
#SBATCH --gpus-per-node=a100:4
#SBATCH --account=mine
#SBATCH --exclusive
#SBATCH --comment='of ours'

export PATH={Path(sys.executable).parent}:$PATH
set -- ablate --benchmark digits --store runs/digits

set -uo pipefail
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def script(*options: str, words: list[str] = ABLATE) -> str:
    outcome = command("submit", "--slurm", "--dry-run", *options, "--", *words)
    assert outcome.status == 0, outcome.err
    return outcome.out


def directives(text: str) -> list[str]:
    return re.findall(r"^#SBATCH --(.+)$", text, re.MULTILINE)


def test_the_script_has_what_the_options_say() -> None:
    several = ["--nodes=2", "--array=3", "--time=12:00:00", "--partition=gpu", "--gpus-per-node=a100:4"]
    others = ["account=mine", "exclusive", "comment=of ours"]
    found = script(*several, "--cpus-per-task=8", *(text for other in others for text in ("--sbatch", other)))
    assert found.startswith(HEADER)
    assert found.endswith(shipped("cluster/slurm.sbatch").read_text().partition("set -uo pipefail\n")[2])


def test_without_options_it_has_the_files_own_directives() -> None:
    of_file, (name, *others) = directives(shipped("cluster/slurm.sbatch").read_text()), directives(script())
    assert [f"job-name={name}" for name in ("scale-ray", "digits")] == [of_file[0], name]
    assert others == of_file[1:]


def test_an_option_of_sbatch_goes_over_the_files() -> None:
    assert "signal=B:USR1@600" in directives(script("--sbatch", "signal=B:USR1@600", "--sbatch=--qos=long"))
    assert directives(script("--sbatch", "job-name=mine"))[0] == "job-name=mine"


def test_help_names_the_defaults_of_the_file() -> None:
    told = command("submit", "--help").out
    of_file = dict(each.split("=") for each in directives(shipped("cluster/slurm.sbatch").read_text()) if "=" in each)
    for option, name in (("--nodes", "nodes"), ("--time", "time"), ("--cpus-per-task", "cpus-per-task")):
        shown = re.search(rf"{option} .*?Default:\s+(\S+?)\.\n", told, re.DOTALL)
        assert shown is not None
        assert shown[1] == of_file[name]


@pytest.mark.parametrize(
    "text", [script.__name__, shipped("cluster/slurm.sbatch").read_text()], ids=["written", "file"]
)
def test_the_script_is_bash(text: str) -> None:
    whole = script() if text == script.__name__ else text
    subprocess.run(["bash", "-n", "-c", whole], check=True)


def test_the_command_keeps_its_words() -> None:
    words = ["ablate", "--store", "runs/it's $HOME", "--set", 'losses.terms="ce"', "--root", "my photos"]
    (line,) = re.findall(r"^set -- .*$", script(words=words), re.MULTILINE)
    given = subprocess.run(["bash", "-c", f"{line}; printf '%s\\n' \"$@\""], capture_output=True, text=True, check=True)
    assert given.stdout.splitlines() == words


def test_the_job_is_called_after_the_store_the_file_or_the_command() -> None:
    Path("mine.py").write_text("")
    names = {
        "deep-er_1": ["ablate", "--store", "runs/deep-er 1/"],
        "bucket": ["compare", "--store=s3://bucket"],
        "study": ["mine.py", "--store", "runs/study"],
        "mine": ["mine.py", "--seeds", "3"],
        "demo": ["run", "demo", "--store", "runs/demo"],
        "run": ["run", "demo"],
        "tuning": ["tune", "--benchmark", "digits"],  # the command's own store
    }
    for name, words in names.items():
        assert directives(script(words=words))[0] == f"job-name={name}"


def test_every_command_with_a_store_on_ray_is_taken_and_no_other(tmp_path: Path) -> None:
    group = typer.main.get_command(cli.app)
    taken = {"ablate", "compare", "auto", "tune"}
    for name in group.commands:  # type: ignore[attr-defined]
        if name in taken:
            script(words=[name, "--store", "s3://bucket/study"])
        elif name != "run":
            refused(command("submit", "--slurm", "--", name), f"{name}: no command that trains on Ray into a --store")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slurm",), ("Missing argument",)),
        (("--slurm", "--", "ablate", "--storage", "x"), ("No such option: --storage", "--store")),
        (("--slurm", "--", "ablate", "--steps", "many"), ("--steps", "integer")),
        (("--slurm", "--", "study.json"), ("study.json: no command that trains", "ablate, compare, auto, tune, run")),
        (("--slurm", "--", "none.py"), ("none.py: no such file",)),
        (("--slurm", "--", "ablate", "--address=x:1"), ("--address=x:1 in the command", "leave it out")),
        (("--slurm", "--", "run", "demo", "--local"), ("--local in the command", "leave it out")),
        (("--slurm", "--", "ablate", "--dry-run"), ("--dry-run in the command", "leave it out")),
        (("--slurm", "--wait", "--", "ablate"), ("--wait: it is for a service",)),
        (("--slurm", "--sbatch", "=x", "--", "ablate"), ("--sbatch '=x'", "NAME=VALUE")),
        (("--slurm", "--time", "1\n2", "--", "ablate"), ("'1\\n2'", "one line")),
        (("--slurm", "--nodes", "0", "--", "ablate"), ("--nodes", "greater than or equal to 1")),
        (("--nodes", "2", "study.json"), ("--nodes: it is for a job of SLURM: add --slurm",)),
        (("--", "ablate", "--store", "x"), ("ablate --store x", "add --slurm")),
    ],
)
def test_what_makes_no_job_is_one_line(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(command("submit", *arguments), *words)
    assert list(Path().iterdir()) == []


def test_without_sbatch_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(command("submit", "--slurm", "--", *ABLATE), "no sbatch on this machine", "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_a_script_of_somebody_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "sbatch"  # never run
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    Path("digits.sbatch").write_text("#!/bin/bash\n")
    refused(command("submit", "--slurm", "--", *ABLATE), "digits.sbatch: is there", "move it")
    assert Path("digits.sbatch").read_text() == "#!/bin/bash\n"


def test_a_folder_that_only_this_machine_sees_is_warned_of(tmp_path: Path) -> None:
    assert _own_disk("/dev/shm/store") == "tmpfs"
    assert _own_disk("/proc/self") == ""  # of a kind that it does not know
    assert _own_disk("s3://bucket/store") == ""
    outcome = command("submit", "--slurm", "--dry-run", "--", "ablate", "--store", "/dev/shm/store")
    assert outcome.err == "warning: --store /dev/shm/store is on tmpfs: every node must see it at this path\n"
    assert outcome.out.startswith("#!/bin/bash\n")  # what --dry-run prints can go to a file


def test_it_is_quick() -> None:
    words = ["submit", "--slurm", "--dry-run", "--", *ABLATE]
    line = [sys.executable, "-X", "importtime", "-m", "scale_ray.cli", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    modules = {row.rpartition("|")[2].strip().partition(".")[0] for row in done.stderr.splitlines()}
    assert "typer" in modules
    assert modules.isdisjoint({"torch", "torchvision", "ray", "pandas", "optuna", "pyarrow"})
    assert shlex.join(ABLATE) in done.stdout
