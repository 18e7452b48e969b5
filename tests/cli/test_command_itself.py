"""The command itself: version, output and faults of the program."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import command

from scale_ray import __version__, cli
from scale_ray.store import Store


def test_version() -> None:
    assert command("--version") == (0, f"scale-ray {__version__}\n", "")


def test_brackets_and_colons_in_a_path_are_printed_as_they_are(tmp_path: Path) -> None:
    store = tmp_path / "[red]:smile:[/red]"
    Store(store, create=True)
    assert command("status", store).out == f"{store}: no study and no record: run a study into it first\n"


@pytest.mark.parametrize("raised", [RuntimeError, ValueError, KeyError])
def test_a_fault_of_the_program_keeps_its_traceback_and_says_so(
    raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise raised("not a user's")

    monkeypatch.setattr(Store, "plan_files", broken)
    monkeypatch.setattr(sys, "argv", ["scale-ray", "status", "/"])
    with pytest.raises(raised, match="not a user's") as error:
        cli.main()
    (note,) = error.value.__notes__
    assert note.startswith(f"This is a fault of scale-ray {__version__}, not of your input. Please report")


def test_a_fault_of_the_program_ends_a_process_with_status_1() -> None:
    code = "from scale_ray.store import Store; Store.plan_files = None; import sys; from scale_ray import cli; "
    code += "sys.argv = ['scale-ray', 'status', '/']; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "TypeError: 'NoneType' object is not callable\nThis is a fault of scale-ray" in done.stderr
