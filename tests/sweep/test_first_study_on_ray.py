"""docs/first_study.ipynb runs as it stands, and holds the outputs of such a run."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from studies import LIMIT

from scale_ray.records import DEFAULT_CHOOSER

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "docs" / "first_study.ipynb"

Outputs = dict[str, list[nbformat.NotebookNode]]


def outputs_of(notebook: nbformat.NotebookNode) -> Outputs:
    """Source of each code cell -> its outputs, without what is said on stderr of caches, full or empty."""
    return {
        cell.source: [each for each in cell.outputs if each.get("name") != "stderr"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def kinds(outputs: list[nbformat.NotebookNode]) -> set[tuple[str, ...]]:
    return {(each["output_type"], *sorted(each.get("data", {}))) for each in outputs}


@pytest.fixture(scope="module")
def stored() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.fixture(scope="module")
def executed(stored: nbformat.NotebookNode, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    notebook = nbformat.from_dict(stored)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("RAY_ADDRESS", "local")  # no other test's Ray
        nbclient.NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(folder)}}).execute()
    return outputs_of(notebook)


def only(found: Outputs, words: str) -> list[nbformat.NotebookNode]:
    """The outputs of the one code cell with these words."""
    (source,) = [source for source in found if words in source]
    return found[source]


def test_a_study_shows_one_bar_and_then_its_tables(executed: Outputs) -> None:
    *_, bar = only(executed, "run(study")
    assert re.search(r"━+ 4 of 4 done, 0 running, 0 failed\n$", bar["data"]["text/plain"])
    (shown,) = executed["results"]
    page = shown["data"]["text/html"]
    assert re.search(r'<th scope="row">ce\+ssl</th><td>\d+\.\d ± \d+\.\d<br><small>seeds ', page)
    assert "All 4 cells are done." in page
    assert only(executed, "results.report()")[0]["text"] == "runs/first/report/report.html\n"


def test_adapt_predicts_every_image_and_its_model_predicts_as_it_did(executed: Outputs) -> None:
    *_, bar, told = only(executed, "scale_ray.adapt(")
    assert re.search(r" [1-7] of ([1-7]) done, 0 running, 0 failed\n$", bar["data"]["text/plain"])
    assert told["text"].startswith("blue: ")
    share = re.fullmatch(r"(\d+)% of 240 images are right\n", only(executed, "right.mean()")[0]["text"])
    assert share
    assert int(share[1]) > 35  # chance is 25
    first = only(executed, "predictions.head()")[0]["data"]["text/plain"]
    again = only(executed, "load_model")[0]["data"]["text/plain"]
    assert re.search(r"000\.png +(\w+)", first)[1] == re.search(r"000\.png +(\w+)", again)[1]  # type: ignore[index]
    image, array = re.findall(r"\d +<NA> +(\w+) +(\S+)", only(executed, "np.asarray(image)")[0]["data"]["text/plain"])
    assert image == array


def test_the_outputs_in_the_file_are_those_of_a_run(stored: nbformat.NotebookNode, executed: Outputs) -> None:
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kept = outputs_of(stored)
    for source, outputs in executed.items():
        assert kinds(kept[source]) == kinds(outputs), source
    text = NOTEBOOK.read_text()
    assert len(text) < 60_000
    assert "4 of 4 done" in text
    assert f"({DEFAULT_CHOOSER} chose" in text
    assert not re.search(r"/(tmp|home|root|work)/|uncommitted", text)
