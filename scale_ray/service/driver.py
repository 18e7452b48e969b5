"""The driver of a study that was submitted: `python -m scale_ray.service.driver STORE STUDY`, run as a Ray job.

What to do stands in the store, so that the command line holds nothing that a submitter wrote but the study's name.
"""

import sys

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from scale_ray.config import ConfigError, Execution, Resources
from scale_ray.errors import UserError
from scale_ray.service.exits import CELLS_FAILED, DONE, STOPPED, STORE_LACKS, USER_ERROR
from scale_ray.store import Store, StoreError
from scale_ray.store.files import Files
from scale_ray.store.orders import Standing
from scale_ray.study import Study
from scale_ray.sweep.plan import plan_study
from scale_ray.sweep.run import run_study


class Errand(BaseModel):
    """What the driver of a study is to do, with every place by its location."""

    model_config = ConfigDict(frozen=True)

    study: Study
    execution: Execution
    resources: Resources


def errand_file(study: str) -> str:
    return f"errands/{study}.json"


def write_errand(files: Files, errand: Errand) -> None:
    """Leave it where the driver reads it."""
    files.make_folders(["errands"])
    files.write(errand_file(errand.study.name), errand.model_dump_json().encode())


def main(location: str, name: str) -> int:
    """Run the study of that name; return the exit status."""
    console = Console(soft_wrap=True, highlight=False)
    try:
        store = Store(location, create=True)
        content = store.files.read(errand_file(name))
        if content is None:
            raise ConfigError(f"{store.files.locate(errand_file(name))}: no such errand: submit the study again")
        errand = Errand.model_validate_json(content)
        plan = plan_study(errand.study, store, errand.execution.root, beside=errand.execution.beside)
        with Standing(store.files, name) as orders:
            outcome = run_study(plan, store, errand.execution, errand.resources, console, orders)
    except UserError as error:
        console.print(f"error: {error}")
        return STORE_LACKS if isinstance(error, StoreError) else USER_ERROR
    console.print(f"{outcome.done} done, {outcome.failed} failed, {outcome.interrupted} to do")
    return STOPPED if outcome.interrupted else CELLS_FAILED if outcome.failed else DONE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
