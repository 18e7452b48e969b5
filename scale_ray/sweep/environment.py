"""What Ray needs of this machine before it can start here, checked first: each lack is one line that names it."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from unittest import mock

from ray._common.utils import get_default_ray_temp_dir
from ray._private import parameter
from ray.exceptions import RayError

from scale_ray.config import ConfigError
from scale_ray.sweep.imports import environment_variable, without_working_folder

_LONGEST_SOCKET = 107  # bytes, on Linux: AF_UNIX
_PROBE = b"\0" * 2**20  # Ray's first logs and files are smaller
_SHARED_MEMORY = Path("/dev/shm")
# From how many arenas glibc serves threads. Each stage of a trial has threads of its own, and each of many arenas would
# keep what one stage has freed. It is heeded where a process begins with it.
_ARENAS = "MALLOC_ARENA_MAX"
_REMEDY = "set RAY_TMPDIR to another folder, on a local disk and with a short path"


@contextmanager
def starting_ray() -> Iterator[None]:
    """The context in which `ray.init` starts Ray on this machine.

    Raises:
        ConfigError: Ray cannot start here.
    """
    folder = Path(get_default_ray_temp_dir())
    _check_socket(folder)
    _prove_writable(folder, f"Ray keeps its files under {folder}", _REMEDY)
    if _SHARED_MEMORY.exists():
        _prove_writable(_SHARED_MEMORY, f"Ray keeps its objects in {_SHARED_MEMORY}", "mount it so that you can write")
    _ensure_token()
    try:
        arenas = environment_variable(_ARENAS, os.environ.get(_ARENAS, "1"))
        with without_working_folder(), arenas, _what_ray_init_lacks():
            yield
    except (OSError, RuntimeError, RayError) as error:
        raise _cannot_start(error, folder) from error
    except Exception as error:
        if type(error) is not Exception:  # which is what Ray raises where one of its processes does not come up
            raise
        raise _cannot_start(error, folder) from error


@contextmanager
def _what_ray_init_lacks() -> Iterator[None]:
    """Parameters of Ray that `ray.init` does not have an option for, which one thread at a time may set.

    Ray's agent takes any free port. By default it has a fixed one, and waits 3.5 s where another Ray on this machine
    holds that. No monitor starts, which would ask a cloud for nodes.
    """
    options = {"dashboard_agent_listen_port": 0, "no_monitor": True}
    with mock.patch.object(parameter, "RayParams", partial(parameter.RayParams, **options)):
        yield


def _check_socket(folder: Path) -> None:
    """Refuse a folder below which the names of Ray's sockets are too long."""
    session = f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    longest = len(os.fsencode(folder / session / "sockets" / "plasma_store"))
    if longest > _LONGEST_SOCKET:
        raise ConfigError(
            f"Ray's sockets under {folder} would have paths of {longest} bytes, and {_LONGEST_SOCKET} is the most: "
            f"{_REMEDY}"
        )


def _prove_writable(folder: Path, purpose: str, remedy: str) -> None:
    """Write a file where the folder is, or would be made."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    try:
        with tempfile.TemporaryDirectory(prefix="scale_ray_", dir=there) as probe:
            (Path(probe) / "file").write_bytes(_PROBE)
    except OSError as error:
        raise ConfigError(f"{purpose}, which cannot be written to ({error.strerror}): {remedy}") from None


def _ensure_token() -> None:
    """Where the home folder cannot keep Ray's token, give it to the processes of this run alone."""
    kept = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if kept or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    try:
        token = Path.home() / ".ray" / "auth_token"
        token.parent.mkdir(parents=True, exist_ok=True)
        writable = token.exists() or os.access(token.parent, os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        writable = False
    if not writable:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _cannot_start(error: Exception, folder: Path) -> ConfigError:
    reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return ConfigError(f"Ray cannot start on this machine ({reason}): its logs are in {folder}/session_latest/logs")
