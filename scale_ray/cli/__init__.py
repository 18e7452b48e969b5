"""The command line: parses options into the objects of the package, and does nothing else.

Commands import what they need, so `scale-ray report` needs neither torch nor ray.
"""

import atexit
import errno
import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from scale_ray import __version__
from scale_ray.cli import (
    adapt,
    auto,
    data,
    export,
    fields,
    forget,
    init,
    predict,
    presets,
    report,
    run,
    serve,
    status,
    submit,
    track,
    train,
    tune,
)
from scale_ray.cli.console import stderr
from scale_ray.cli.examples import EXAMPLES, of_search, of_study
from scale_ray.cli.groups import command
from scale_ray.cli.help import Command, Group
from scale_ray.cli.interrupt import heeding_ctrl_c
from scale_ray.cli.read import refuse_passwords
from scale_ray.cli.study import study_command
from scale_ray.errors import UserError
from scale_ray.extras import left_out_as_a_message
from scale_ray.study import Study

USER_ERROR = 2  # exit status

app = typer.Typer(
    cls=Group,
    help="Unsupervised domain adaptation studies on Ray.",
    epilog=EXAMPLES[""],
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add(name: str, function: Callable[..., None], **defaults: Any) -> None:
    app.command(name, cls=Command, epilog=EXAMPLES[name], context_settings={"default_map": defaults})(function)


_add("adapt", command(adapt.adapt))
_add("train", train.train)
_add("ablate", study_command(presets.ablation, presets.ABLATE), store="runs/ablation")
_add(
    "compare",
    study_command(presets.comparison, presets.COMPARE, presets.with_prototypes),
    store="runs/comparison",
)
_add("auto", command(auto.auto), store="runs/auto")
_add("tune", tune.tune_command(presets.search), store="runs/tuning")
_add("init", init.init)
_add("export", export.export)
_add("predict", predict.predict)
_add("report", command(report.report))
_add("status", command(status.status))
_add("forget", command(forget.forget))
_add("track", command(track.track))
_add("fields", fields.fields)
_add("serve", command(serve.serve))
_add("submit", command(submit.submit))
app.command(
    "run",
    cls=Command,
    epilog=EXAMPLES["run"],
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)(run.run)
app.add_typer(serve.token_app, name="token")
app.add_typer(data.app, name="data")


def main() -> None:
    """The `scale-ray` command."""
    with_clear_errors(app)


def run_as_script(function: Callable[..., None], defaults: Mapping[str, Any], examples: str | None = None) -> None:
    """Run a command as a script of its own, with other defaults of its options.

    Args:
        function: see `command`. Its docstring is the help.
        defaults: parameter -> value.
        examples: command lines, at the end of the help.

    Raises:
        TypeError: a default for an option that the command does not have.
    """
    inspect.signature(function).bind_partial(**defaults)
    script = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
    script.command(cls=Command, epilog=examples, context_settings={"default_map": dict(defaults)})(function)
    with_clear_errors(script)


def study_main(study: Study, defaults: Mapping[str, Any]) -> None:
    """See `scale_ray.main`."""
    about = sys.modules["__main__"].__doc__ or f"Run the study {study.name} on Ray, then write its report."
    given = {"store": f"runs/{study.name}", **defaults}
    run_as_script(study_command(lambda: study, about), given, of_study(_script()))


def search_main(study: Study, defaults: Mapping[str, Any]) -> None:
    """See `scale_ray.tune`."""
    given = {"store": f"runs/{study.name}", **defaults}
    about = sys.modules["__main__"].__doc__ or ""
    run_as_script(tune.tune_command(lambda: study, about), given, of_search(_script()))


def _script() -> Path:
    """The file that runs, as its caller wrote it."""
    return Path(sys.argv[0])


def with_clear_errors(command: typer.Typer) -> None:
    """Print a user's error as one line and exit with 2; keep the traceback of any other exception and exit with 1.

    SCALE_RAY_DEBUG=1 shows the traceback of a user's error too.
    """
    with heeding_ctrl_c(), _collecting_less():
        _with_clear_errors(command)


@contextmanager
def _collecting_less() -> Iterator[None]:
    """Look less often for objects that nothing uses any longer. Torch and Ray import a million that stay.

    Python's defaults took a fifth of their import, and a second at the end of the process, whose last search is left
    out: nothing here waits for it.
    """
    before = gc.get_threshold()
    gc.set_threshold(10_000, 10, 10)
    atexit.unregister(gc.freeze)  # of an earlier command in this process
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _with_clear_errors(command: typer.Typer) -> None:
    try:
        with left_out_as_a_message():
            refuse_passwords()
            sys.exit(command(standalone_mode=False))
    except (UserError, typer.TyperException) as error:
        if os.environ.get("SCALE_RAY_DEBUG"):
            raise
        # Typer's own message is empty where it has printed the help instead.
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        for line in message.splitlines():
            stderr.print(f"error: {line}")
        sys.exit(USER_ERROR)
    except typer.Abort:
        print("aborted: the question was not answered", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            print(f"error: {error.filename}: {error.strerror}: give a shorter path", file=sys.stderr)
            sys.exit(USER_ERROR)
        error.add_note(
            f"This is a fault of scale-ray {__version__}, not of your input. Please report the lines above, with the "
            "command and what you expected."
        )
        raise


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"scale-ray {__version__}")
        raise typer.Exit
