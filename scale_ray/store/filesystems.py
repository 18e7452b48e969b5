"""The kinds of file system that files can be on: a folder, or an object store that fsspec knows.

Each does the bare deed, once, and raises its own errors; `files` makes patience and messages of them.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from scale_ray.errors import UserError

if TYPE_CHECKING:
    import pyarrow.fs

# Only where one PUT is atomic and can be exclusive: scheme -> the extra of this package that knows it.
_EXTRAS = {"s3": "s3", "gs": "gcs", "memory": ""}
_URL = re.compile(r"([A-Za-z][\w+.-]+):/+(.*)", re.DOTALL)  # one slash will do: a Path has lost the other
_CONNECTIONS = 32  # botocore's 10 make a listing of many records wait

# What a service that will be back says; s3fs maps its codes and HTTP statuses to these.
_PASSING = {errno.EBUSY, errno.EIO, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}


class StoreError(UserError):
    """The store cannot be used as asked; the message names the path and the remedy."""


class Place(Protocol):
    """A kind of file system. FileNotFoundError and FileExistsError are answers, every other error is a failure."""

    location: str
    remedy: str  # what a user should do after a failure
    alternative: str  # and where nothing can be written at all

    def there(self) -> bool: ...
    def make(self, folders: list[str]) -> None:
        """Make folders where they are missing, and prove that files can be written there."""

    def read(self, name: str) -> bytes: ...
    def read_together(self, names: list[str]) -> list[bytes | None]:
        """Contents in the order of the names; None where a file could not be read, for whatever reason."""

    def write(self, name: str, content: bytes) -> None: ...
    def create(self, name: str, content: bytes) -> None: ...
    def delete(self, name: str) -> None: ...
    def sweep(self, name: str) -> None:
        """Remove what killed writers of that file left."""

    def exists(self, name: str) -> bool: ...
    def names(self, folder: str) -> list[str]: ...
    def folders(self, folder: str) -> list[str]: ...
    def delete_folder(self, name: str) -> None: ...
    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]": ...
    def passes(self, error: BaseException) -> bool:
        """Whether the same call may succeed later."""


def place(location: str) -> Place:
    """The folder or object store of that path or URL.

    Raises:
        StoreError: a scheme that cannot keep a store, or whose package is not installed.
    """
    url = _URL.fullmatch(location)
    if url is None:
        return Folder(Path(location))
    scheme, path = url[1].lower(), url[2].strip("/")
    if scheme == "file":
        return Folder(Path("/" + path))
    if scheme not in _EXTRAS:
        raise StoreError(f"store {location}: no store can be on {scheme}://: give a folder, s3:// or gs://")
    if not path:
        raise StoreError(f"store {location}: names no bucket: write {scheme}://BUCKET/PREFIX")
    return Bucket(scheme, path)


class Folder:
    """A folder of a mounted file system. It must know hard links, as local ones and NFS do."""

    remedy = "check the folder, its permissions and its free space"
    alternative = "choose another folder or change its permissions"

    def __init__(self, path: Path):
        self.root = path.expanduser().absolute()
        self.location = str(self.root)

    def there(self) -> bool:
        return self.root.is_dir()

    def make(self, folders: list[str]) -> None:
        for folder in folders:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / folder):
                pass

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_together(self, names: list[str]) -> list[bytes | None]:
        return [self._read_or_none(name) for name in names]

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except OSError:
            return None

    def write(self, name: str, content: bytes) -> None:
        with whole_file(self.root / name) as file:
            file.write(content)

    def create(self, name: str, content: bytes) -> None:
        with whole_file(self.root / name, os.link) as file:  # fails where there is one, and is atomic on NFS too
            file.write(content)

    def delete(self, name: str) -> None:
        (self.root / name).unlink()

    def sweep(self, name: str) -> None:
        path = self.root / name
        for left in path.parent.iterdir():
            if left.name.startswith(f".{path.name}."):
                left.unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def names(self, folder: str) -> list[str]:
        return os.listdir(self.root / folder)

    def folders(self, folder: str) -> list[str]:
        return [entry.name for entry in os.scandir(self.root / folder) if entry.is_dir()]

    def delete_folder(self, name: str) -> None:
        shutil.rmtree(self.root / name)

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        return str(self.root / name), None

    def passes(self, error: BaseException) -> bool:
        # NFS: another machine replaced the file while this one was reading it.
        return isinstance(error, OSError) and error.errno == errno.ESTALE


class Bucket:
    """A prefix of an object store, by fsspec."""

    remedy = alternative = "check the address, the credentials and the network"

    def __init__(self, scheme: str, path: str):
        self.scheme, self.path = scheme, path
        self.location = f"{scheme}://{path}"
        self._class()  # is its package installed?

    def _class(self) -> Any:
        import fsspec

        try:
            return fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            extra = _EXTRAS[self.scheme]
            raise StoreError(
                f"store {self.location}: {str(error).rstrip('.')}: pip install 'scale-ray[{extra}]'"
            ) from error

    def _open(self, **s3_options: Any) -> Any:
        options = s3_options if self.scheme == "s3" else {}
        # An instance of our own: fsspec would hand out one that was made under another environment.
        return self._class()(skip_instance_cache=True, use_listings_cache=False, **options)

    @cached_property
    def _system(self) -> Any:
        config = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _CONNECTIONS}
        system = self._open(config_kwargs=config)
        system.retries = 1  # patience is in one place: `files`
        return system

    @property
    def _whole(self) -> dict[str, Any]:
        """One GET a file: s3fs would ask for its size and then for ranges, which may be of two different contents."""
        return {"max_concurrency": 1} if self.scheme == "s3" else {}

    def _full(self, name: str) -> str:
        return f"{self.path}/{name}".rstrip("/")

    def there(self) -> bool:
        return self.exists("")

    def make(self, folders: list[str]) -> None:
        # There are no folders here; the file stays, so that the place is there before anything else is in it.
        self.write(".keep", b"")
        try:
            self.create(".keep", b"overwritten")
        except FileExistsError:
            return
        raise OSError("it ignores the condition of a conditional PUT, so drivers could not share it")

    def read(self, name: str) -> bytes:
        content: bytes = self._system.cat_file(self._full(name), **self._whole)
        return content

    def read_together(self, names: list[str]) -> list[bytes | None]:
        paths = [self._full(name) for name in names]
        found = self._system.cat_ranges(paths, None, None, on_error="return", batch_size=_CONNECTIONS, **self._whole)
        return [content if isinstance(content, bytes) else None for content in found]

    def write(self, name: str, content: bytes) -> None:
        self._system.pipe_file(self._full(name), content)

    def create(self, name: str, content: bytes) -> None:
        try:
            self._system.pipe_file(self._full(name), content, mode="create")
        except OSError as error:
            # s3fs wants S3 to name the condition too, which not every server that speaks S3 does.
            response = getattr(error.__cause__, "response", {})
            if response.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
                raise FileExistsError(name) from error
            raise

    def delete(self, name: str) -> None:
        self._system.rm_file(self._full(name))

    def sweep(self, name: str) -> None:
        """Nothing: an unfinished PUT leaves no object."""

    def exists(self, name: str) -> bool:
        try:
            self._system.info(self._full(name))
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        found = self._system.ls(self._full(folder), detail=True)
        return [entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "file"]

    def folders(self, folder: str) -> list[str]:
        found = self._system.ls(self._full(folder), detail=True)
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory"]

    def delete_folder(self, name: str) -> None:
        self._system.rm(self._full(name), recursive=True)

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        # Others ask through this one, so it has to be patient itself: about 80 s.
        patient = self._open(config_kwargs={"retries": {"mode": "standard", "total_max_attempts": 12}})
        return self._full(name), PyFileSystem(FSSpecHandler(patient))

    def passes(self, error: BaseException) -> bool:
        if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
            return False
        if isinstance(error, OSError) and (isinstance(error, ConnectionError) or error.errno in _PASSING):
            return True
        if isinstance(error, TimeoutError):  # which has no errno where it comes from asyncio
            return True
        if self.scheme == "s3":
            from botocore.exceptions import ConnectionError as NoConnection
            from s3fs.core import S3_RETRYABLE_ERRORS

            return isinstance(error, (NoConnection, *S3_RETRYABLE_ERRORS))
        if self.scheme == "gs":
            from gcsfs.retry import is_retriable

            return bool(is_retriable(error))
        return False


@contextmanager
def whole_file(path: Path, put: Callable[[str, Path], None] = os.replace) -> Iterator[IO[bytes]]:
    """Open a file that gets its name, whole and flushed to disk, when the block ends without an error."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 would lock colleagues out of a shared store
        put(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
