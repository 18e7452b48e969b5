"""scale-ray serve and token: the service, and its tokens."""

import os
import sys
from contextlib import ExitStack
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scale_ray.cli.console import console, plain_table
from scale_ray.cli.examples import EXAMPLES
from scale_ray.cli.help import Command, Group
from scale_ray.cli.interrupt import on_ctrl_c
from scale_ray.config import ConfigError
from scale_ray.extras import how_to_install

if TYPE_CHECKING:
    from socket import socket

    from scale_ray.service.settings import ServiceSettings

_ENDING = 60.0  # seconds from Ctrl-C: requests are answered, and a Ray of its own ends

Settings = Annotated[
    Path | None,
    typer.Argument(
        metavar="SETTINGS.toml",
        help="The service's settings. Default: one store, runs/service, on this machine.",
        show_default=False,
    ),
]


def serve(
    settings: Settings = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Listen here. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Default: 8700.")] = None,
    own_ray: Annotated[
        bool, typer.Option("--own-ray", help="Start a Ray of its own on this machine, which ends with the service.")
    ] = False,
) -> None:
    """Take studies over HTTP, run them on a Ray cluster, and show them while they run.

    Stop and start it as you like: the studies go on, and what is done lies in their stores.
    """
    _use_rays_token()
    chosen = _settings(settings, host=host, port=port)
    with ExitStack() as stack:
        if own_ray:
            from scale_ray.service.local_ray import start_ray

            console.print("starting Ray on this machine")
            chosen = chosen.model_copy(update={"ray": stack.enter_context(start_ray()), "python": sys.executable})
        _run(chosen)


def _settings(file: Path | None, **given: Any) -> "ServiceSettings":
    """The settings of a file, or the default ones; options go over them."""
    _need_the_extra()
    from scale_ray.service.settings import read_values, settings_of

    values = {"stores": {"default": "runs/service"}} if file is None else read_values(file)
    options = {name: value for name, value in given.items() if value is not None}
    return settings_of({**values, **options}, "settings" if file is None else str(file))


def _need_the_extra() -> None:
    if not all(map(find_spec, ("fastapi", "uvicorn"))):
        raise ConfigError(f"the service needs the extra serve: {how_to_install('serve')}")


def _use_rays_token() -> None:
    """Show Ray's token to a cluster that asks for one, where there is a token. Ray reads this when it is imported."""
    there = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if there or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _run(settings: "ServiceSettings") -> None:
    from scale_ray.service.logs import log_to_stderr
    from scale_ray.service.server import listen

    log_to_stderr()
    on_ctrl_c("what is done is kept; the studies go on when the service is started again", seconds=_ENDING)
    with listen(settings.host, settings.port) as listening:  # before any work: another service may run here
        _serve(settings, listening)


def _serve(settings: "ServiceSettings", listening: "socket") -> None:
    from scale_ray.service.access import create_token, tokens
    from scale_ray.service.app import app_of
    from scale_ray.service.server import serve_until_told
    from scale_ray.service.service import Service

    service = Service(settings)
    address = f"http://{settings.host}:{settings.port}"
    if settings.tokens and settings.proxy is None and not tokens(service.database):
        token = create_token(service.database, os.environ.get("USER") or "admin", "admin", "made by the first start")
        console.print("the first token, of scope admin; it is shown this once:")
        console.print_command(token)
    stores = ", ".join(settings.stores)
    console.print(f"serving {'store' if len(settings.stores) == 1 else 'stores'} {stores} at {address}; Ctrl-C ends it")
    serve_until_told(app_of(service), listening)


token_app = typer.Typer(
    cls=Group,
    help="Create, list and revoke tokens of the service.",
    epilog=EXAMPLES["token"],
    no_args_is_help=True,
    rich_markup_mode=None,
)
Prefix = Annotated[str, typer.Argument(metavar="DIGEST", help="Its first characters, as `scale-ray token list` shows.")]
SettingsOption = Annotated[
    Path | None, typer.Option("--settings", metavar="FILE", help="The service's settings, which name its database.")
]


@token_app.command("create", cls=Command, epilog=EXAMPLES["token create"])
def create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="Whose studies it submits.")],
    scope: Annotated[str, typer.Option(metavar="SCOPE", help="read, submit or admin.")] = "submit",
    note: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    settings: SettingsOption = None,
) -> None:
    """Make a token, and print it. Only its digest is kept."""
    chosen = _settings(settings)
    from scale_ray.service.access import create_token
    from scale_ray.service.database import Database

    console.print(create_token(Database(chosen.database), owner, scope, note))


@token_app.command("list", cls=Command, epilog=EXAMPLES["token list"])
def list_tokens(settings: SettingsOption = None) -> None:
    """Show the tokens by the first characters of their digests."""
    chosen = _settings(settings)
    from scale_ray.service.access import tokens
    from scale_ray.service.database import Database

    table = plain_table("digest", "owner", "scope", "created", "note")
    for row in tokens(Database(chosen.database)):
        created = datetime.fromtimestamp(row.created).strftime("%Y-%m-%d %H:%M")
        table.add_row(row.digest[:12], row.owner, row.scope, created, row.note)
    console.print(table)


@token_app.command("revoke", cls=Command, epilog=EXAMPLES["token revoke"])
def revoke(digest: Prefix, settings: SettingsOption = None) -> None:
    """Make a token invalid at once."""
    chosen = _settings(settings)
    from scale_ray.service.access import revoke_token
    from scale_ray.service.database import Database

    row = revoke_token(Database(chosen.database), digest)
    console.print(f"revoked: {row.digest[:12]} of {row.owner}")
