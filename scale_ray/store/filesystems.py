"""The file systems that a store can be on: a local folder, or an object store through fsspec.

Each method makes one attempt and raises the error of the underlying library. `scale_ray.store.files` adds the retries
and turns errors into messages.
"""

import errno
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scale_ray.errors import UserError, shown
from scale_ray.extras import how_to_install
from scale_ray.store.whole_files import prove_writable, remove_temporaries, write_whole
from scale_ray.urls import as_url

if TYPE_CHECKING:
    import pyarrow.fs

# URL scheme -> the extra of this package that supports it. Only object stores whose PUT is atomic.
_EXTRAS = {"s3": "s3", "gs": "gcs"}
_CONNECTIONS = 32  # botocore's default of 10 slows down the reading of many records

# Errors of a service that is temporarily unavailable. s3fs maps error codes and HTTP statuses to these numbers.
_TRANSIENT_ERRNOS = {errno.EBUSY, errno.EIO, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}

# S3's limit of a single PUT. A larger object is uploaded in parts, and parts of a killed writer stay and are billed.
_LARGEST_PUT = 5 * 2**30

# One part of a name: no separator of any system, no control character, no byte that is not UTF-8, not `.` or `..`.
_PART = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,255}")


class StoreError(UserError):
    """The store cannot be used as asked; the message names the path and the remedy."""


class FileSystem(Protocol):
    """Files by name under one location.

    FileNotFoundError is a regular answer. Every other exception is a failure.
    """

    location: str
    remedy: str  # what the user can do after a failure
    alternative: str  # what the user can do where nothing can be written at all

    def location_exists(self) -> bool: ...
    def make_folders(self, folders: list[str]) -> None:
        """Create missing folders and check that files can be written to each."""

    def read(self, name: str) -> bytes: ...
    def read_batch(self, names: list[str]) -> list[bytes | None]:
        """Contents in the order of the names; None for a file that could not be read, for any reason."""

    def write(self, name: str, content: bytes) -> None: ...
    def delete(self, name: str) -> None: ...
    def delete_many(self, names: list[str]) -> None:
        """Remove the files that exist."""

    def remove_temporaries(self, folder: str, name: str | None = None) -> None:
        """Remove the temporary files that killed writers left in the folder; with `name`, only those of that file."""

    def exists(self, name: str) -> bool: ...
    def names(self, folder: str) -> list[str]: ...
    def stamps(self, folder: str) -> dict[str, str]:
        """Name of each file in the folder -> what changes whenever the file is written. One listing."""

    def folders(self, folder: str) -> list[str]: ...
    def delete_folder(self, name: str) -> None: ...
    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]": ...
    def is_transient(self, error: BaseException) -> bool:
        """Whether the same call may succeed later."""


def checked(location: str, name: str) -> str:
    """The name of a file or folder under a location, which may come from a file that others have written.

    It is the only way to a path, for every file system. The empty name is the location itself.

    Raises:
        StoreError: the name could lead out of the location, or no file can have it.
    """
    if name and not all(_PART.fullmatch(part) for part in name.split("/")):
        raise StoreError(f"store {location}: '{shown(name)}' is no name of a file in a store: remove what names it")
    return name


def open_filesystem(location: str) -> FileSystem:
    """The file system at a path or URL.

    Raises:
        StoreError: the URL's scheme is not supported, its package is not installed, or the URL names no bucket.
    """
    url = as_url(location)
    if url is None:
        return Folder(Path(location))
    scheme, path = url[0], url[1].strip("/")
    if scheme == "file":
        return Folder(Path("/" + path))
    if scheme not in _EXTRAS:
        raise StoreError(f"store {location}: {scheme}:// is not supported: give a folder, s3:// or gs://")
    if not path:
        raise StoreError(f"store {location}: the URL names no bucket: write {scheme}://BUCKET/PREFIX")
    return Bucket(scheme, path)


class Folder:
    """A folder of a mounted file system. It needs neither hard links nor file locks."""

    remedy = "check the folder, its permissions and its free space"
    alternative = "choose another folder or change its permissions"

    def __init__(self, path: Path):
        self.root = path.expanduser().absolute()
        self.location = str(self.root)

    def location_exists(self) -> bool:
        return self.root.is_dir()

    def _path(self, name: str) -> Path:
        return self.root / checked(self.location, name)

    def make_folders(self, folders: list[str]) -> None:
        for folder in folders:
            path = self._path(folder)
            path.mkdir(parents=True, exist_ok=True)
            prove_writable(path)

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def read_batch(self, names: list[str]) -> list[bytes | None]:
        return [self._read_or_none(name) for name in names]

    def _read_or_none(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except OSError:
            return None

    def write(self, name: str, content: bytes) -> None:
        write_whole(self._path(name), content)

    def delete(self, name: str) -> None:
        self._path(name).unlink()

    def delete_many(self, names: list[str]) -> None:
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def remove_temporaries(self, folder: str, name: str | None = None) -> None:
        remove_temporaries(self._path(folder), None if name is None else {name})

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def names(self, folder: str) -> list[str]:
        return os.listdir(self._path(folder))

    def stamps(self, folder: str) -> dict[str, str]:
        found = {}
        with os.scandir(self._path(folder)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # removed since
                    status = entry.stat()
                    found[entry.name] = f"{status.st_ino}-{status.st_ctime_ns}-{status.st_size}"
        return found

    def folders(self, folder: str) -> list[str]:
        with os.scandir(self._path(folder)) as found:
            return [entry.name for entry in found if entry.is_dir()]

    def delete_folder(self, name: str) -> None:
        """Remove the folder and what is in it. A symbolic link is removed, and what it leads to stays."""
        path = self._path(name)
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(
                f"{path}: not deleted, because a symbolic link above it leads out of the store, to "
                f"{path.parent.resolve()}: remove the link"
            )
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)  # follows no link below it either

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        return str(self._path(name)), None

    def is_transient(self, error: BaseException) -> bool:
        # ESTALE on NFS: another machine replaced the file while this one was reading it.
        return isinstance(error, OSError) and error.errno == errno.ESTALE


class Bucket:
    """A prefix of an object store, through fsspec."""

    remedy = alternative = "check the address, the credentials and the network"

    def __init__(self, scheme: str, path: str):
        self.scheme, self.path = scheme, path
        self.location = f"{scheme}://{path}"
        self._class()  # fail early if the package is not installed

    def _class(self) -> Any:
        import fsspec

        try:
            return fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            remedy = how_to_install(_EXTRAS[self.scheme])
            raise StoreError(f"store {self.location}: {str(error).rstrip('.')}: {remedy}") from error

    def _open(self, **s3_options: Any) -> Any:
        options = s3_options if self.scheme == "s3" else {}
        # Never fsspec's cached instance: it may have been created with other environment variables.
        return self._class()(skip_instance_cache=True, use_listings_cache=False, **options)

    @cached_property
    def _system(self) -> Any:
        config = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _CONNECTIONS}
        system = self._open(config_kwargs=config)
        system.retries = 1  # retries are left to `Files`
        return system

    @property
    def _single_get(self) -> dict[str, Any]:
        """Options that make s3fs read a file by one GET.

        By default it asks for the size and then for ranges, and these can belong to two different contents.
        """
        return {"max_concurrency": 1} if self.scheme == "s3" else {}

    def _full_path(self, name: str) -> str:
        return f"{self.path}/{checked(self.location, name)}".rstrip("/")

    @property
    def _single_put(self) -> dict[str, Any]:
        return {"chunksize": _LARGEST_PUT} if self.scheme == "s3" else {}

    def location_exists(self) -> bool:
        return self.exists("")

    def make_folders(self, folders: list[str]) -> None:
        # An object store has no folders. This file stays, so that the location exists before it has other content.
        self.write(".keep", b"")

    def read(self, name: str) -> bytes:
        content: bytes = self._system.cat_file(self._full_path(name), **self._single_get)
        return content

    def read_batch(self, names: list[str]) -> list[bytes | None]:
        paths = [self._full_path(name) for name in names]
        options = {"on_error": "return", "batch_size": _CONNECTIONS} | self._single_get
        found = self._system.cat_ranges(paths, None, None, **options)
        return [content if isinstance(content, bytes) else None for content in found]

    def write(self, name: str, content: bytes) -> None:
        self._system.pipe_file(self._full_path(name), content, **self._single_put)

    def delete(self, name: str) -> None:
        self._system.rm_file(self._full_path(name))

    def delete_many(self, names: list[str]) -> None:
        if self.scheme == "s3":
            self._system.rm([self._full_path(name) for name in names])  # a thousand in a request
            return

        def delete(name: str) -> None:
            with suppress(FileNotFoundError):
                self.delete(name)

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(delete, names))

    def remove_temporaries(self, folder: str, name: str | None = None) -> None:
        """Do nothing: an unfinished PUT leaves no object."""

    def exists(self, name: str) -> bool:
        try:
            self._system.info(self._full_path(name))
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        found = self._system.ls(self._full_path(folder), detail=True)
        return [entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "file"]

    def stamps(self, folder: str) -> dict[str, str]:
        found = self._system.ls(self._full_path(folder), detail=True)
        tag = "ETag" if self.scheme == "s3" else "etag"
        return {entry["name"].rpartition("/")[2]: str(entry[tag]) for entry in found if entry["type"] == "file"}

    def folders(self, folder: str) -> list[str]:
        found = self._system.ls(self._full_path(folder), detail=True)
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory"]

    def delete_folder(self, name: str) -> None:
        self._system.rm(self._full_path(name), recursive=True)

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        # Arrow's calls do not go through `Files`, so this file system retries by itself, for about 80 s.
        retrying = self._open(
            config_kwargs={"retries": {"mode": "standard", "total_max_attempts": 12}},
            default_block_size=_LARGEST_PUT,  # one PUT for each file that is streamed
        )
        return self._full_path(name), PyFileSystem(FSSpecHandler(retrying))

    def is_transient(self, error: BaseException) -> bool:
        if isinstance(error, FileNotFoundError | PermissionError):
            return False
        if isinstance(error, OSError) and (isinstance(error, ConnectionError) or error.errno in _TRANSIENT_ERRNOS):
            return True
        if isinstance(error, TimeoutError):  # asyncio's has no errno
            return True
        if self.scheme == "s3":
            from botocore.exceptions import ConnectionError as BotoConnectionError
            from s3fs.core import S3_RETRYABLE_ERRORS

            return isinstance(error, (BotoConnectionError, *S3_RETRYABLE_ERRORS))
        if self.scheme == "gs":
            from gcsfs.retry import is_retriable

            return bool(is_retriable(error))
        return False
