"""What a notebook shows while a study runs, in a real kernel."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from studies import LIMIT

PRELUDE = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parents[2])!r}, {str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_progress import CONFIG, INPUTS, result
from scale_ray.cell import Cell
from scale_ray.cli.console import console
from scale_ray.sweep.progress import StudyProgress
from scale_ray.training.stages import alone

def stages(number):
    configs = [CONFIG.replace({{"seed": seed}}) for seed in range(number)]
    return [alone(Cell(id=str(config.seed), config=config, inputs=INPUTS)) for config in configs]
"""


def outputs(code: str, folder: Path, *, updates: list[str] | None = None) -> list[nbformat.NotebookNode]:
    """What a notebook's file has below `code` when it has run. `updates`: gets every later picture, as text."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(PRELUDE + code)])
    client = nbclient.NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(folder)}})
    process = client.process_message

    def watch(message, cell, cell_index):  # type: ignore[no-untyped-def]
        if message["msg_type"] == "update_display_data" and updates is not None:
            updates.append(message["content"]["data"]["text/plain"])
        return process(message, cell, cell_index)

    client.process_message = watch  # type: ignore[method-assign]
    client.execute()
    return notebook.cells[0].outputs


def test_one_bar_counts_any_number_of_cells_and_keeps_what_went_wrong(tmp_path: Path) -> None:
    (shown,) = outputs(
        """
with StudyProgress(found := stages(40), 0, console) as progress:
    for number, stage in enumerate(found):
        progress.begun(stage)
        progress.reported(stage, {"step": 0})
        progress.reported(stage, result(20))
        if number % 5 == 4:
            progress.failed(stage, again=False, reason=f"ValueError: <b>no [bold]{number}")
        else:
            progress.ended(stage)
""",
        tmp_path,
    )
    assert shown["output_type"] == "display_data"
    first, *messages = shown["data"]["text/plain"].splitlines()
    assert first.endswith("32 of 40 done, 0 running, 8 failed")
    told = " ".join(messages)
    assert [number for number in range(40) if f"[bold]{number} " in told] == [19, 24, 29, 34, 39]
    assert "&lt;b&gt;no [bold]39" in shown["data"]["text/html"]


def test_the_bar_moves_while_the_study_runs(tmp_path: Path) -> None:
    updates: list[str] = []
    (shown,) = outputs(
        """
with StudyProgress(found := stages(2), 0, console) as progress:
    for stage in found:
        progress.begun(stage)
        progress.reported(stage, {"step": 0})
        progress.reported(stage, {"at": 10, "seconds_a_step": 1.0})
        progress.reported(stage, result(20))
        time.sleep(5)
        progress.ended(stage)
""",
        tmp_path,
        updates=updates,
    )
    middle = [text for text in updates if "1 of 2 done, 1 running, 0 failed, about " in text]
    assert middle, updates
    assert "seed 1" in middle[-1]
    assert "20 / 100" in middle[-1]
    assert "target 50.0 %" in middle[-1]
    assert "2 of 2 done" in shown["data"]["text/plain"]


@pytest.mark.slow
def test_an_error_ends_the_bar_too(tmp_path: Path) -> None:
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="disk full"):
        outputs(
            """
import threading
try:
    with StudyProgress(stages(2), 0, console):
        raise OSError("disk full")
finally:
    assert not [thread for thread in threading.enumerate() if "draw_again" in thread.name], threading.enumerate()
""",
            tmp_path,
        )
