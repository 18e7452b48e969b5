"""Named files under one root: a local or NFS folder, s3:// or gs://. Contents are bytes.

Writes are atomic: a reader sees the old content or the new one and never a part, even if the writer is killed. In a
folder, the content goes to a temporary file that is flushed and renamed. On an object store, a single PUT is atomic.
botocore and google-auth read the credentials and the endpoint of an object store from the environment
(AWS_ENDPOINT_URL included). They are never stored.

A call that fails because the file system is temporarily unavailable is repeated for `RETRY_SECONDS` before it raises.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scale_ray.store.filesystems import Folder, StoreError, open_filesystem
from scale_ray.store.whole_files import write_whole
from scale_ray.urls import redacted

if TYPE_CHECKING:
    import pyarrow.fs

__all__ = ["Files", "StoreError", "replace_file"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 120.0
_READ_BATCH = 256  # files that `read_many` holds in memory at once


class Files:
    """Files by name (`records/a.json`) under a location.

    The constructor sends no request unless `create` is set. An instance pickles as its location.

    Args:
        location: a folder, or a URL such as s3://bucket/prefix.
        create: create the folder if it is missing, and check that it can be written to.

    Attributes:
        location: absolute path or URL, without a trailing slash.
        folder: the local folder; None on an object store.

    Raises:
        StoreError: from every method, if the file system refuses the call or stays unavailable, or if a name could lead
            out of the location (see `filesystems.checked`); from the constructor,
            if the URL's scheme is not supported, its package is not installed, or the folder cannot be created.
    """

    def __init__(self, location: str | Path, *, create: bool = False):
        self._filesystem = open_filesystem(str(location))
        self.location = self._filesystem.location
        self.folder = self._filesystem.root if isinstance(self._filesystem, Folder) else None
        if create:
            self.make_folders([""])

    def __reduce__(self) -> tuple[type["Files"], tuple[str]]:
        return Files, (self.location,)

    def locate(self, name: str) -> str:
        """The file's path or URL, for messages."""
        return f"{self.location}/{name}"

    def location_exists(self) -> bool:
        """Whether the folder exists, or any object under the URL."""
        return self._call("read", "", self._filesystem.location_exists)

    def make_folders(self, folders: Iterable[str]) -> None:
        """Create folders, and check that each can be written to: better an error now than after hours of training."""
        try:
            self._retry(partial(self._filesystem.make_folders, list(folders)))
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(
                f"store {self.location}: cannot be written to ({_reason(error)}): {self._filesystem.alternative}"
            ) from error

    def read(self, name: str) -> bytes | None:
        """The file's content, or None if there is no such file."""
        try:
            return self._call("read", name, partial(self._filesystem.read, name))
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file, in order; a file that does not exist is left out."""
        wanted = list(names)
        for start in range(0, len(wanted), _READ_BATCH):
            batch = wanted[start : start + _READ_BATCH]
            for name, content in zip(batch, self._filesystem.read_batch(batch), strict=True):
                if content is None:  # the batch does not say why: read the file alone, with retries
                    content = self.read(name)
                if content is not None:
                    yield name, content

    def write(self, name: str, content: bytes) -> None:
        """Write the file atomically, replacing any earlier content. Its folder must exist: see `make_folders`."""
        try:
            self._call("written", name, partial(self._filesystem.write, name, content))
        except FileNotFoundError as error:
            raise self._failure("written", name, error) from error

    def delete(self, name: str) -> None:
        """Remove the file if it exists."""
        try:
            self._call("deleted", name, partial(self._filesystem.delete, name))
        except FileNotFoundError:
            return

    def delete_many(self, names: Iterable[str]) -> None:
        """Remove those of the files that exist. On S3 it takes one request for a thousand of them."""
        wanted = list(names)
        if len(wanted) == 1:
            self.delete(wanted[0])
        elif wanted:
            self._call("deleted", f"{wanted[0]} and others", partial(self._filesystem.delete_many, wanted))

    def purge(self, name: str) -> None:
        """Remove the file, or a folder in its place, and what killed writers left. No process may be writing it."""
        try:
            self.delete(name)
        except StoreError:
            if name.rpartition("/")[2] not in self.folders(name.rpartition("/")[0]):
                raise
            self.delete_folder(name)
        folder, _, file = name.rpartition("/")
        self.remove_temporaries(folder, file)

    def remove_temporaries(self, folder: str, name: str | None = None) -> None:
        """Remove what killed writers left in a folder, if it exists. A process that still writes there starts over.

        Args:
            name: of a file, to remove only what its writers left.
        """
        try:
            self._call("deleted", folder, partial(self._filesystem.remove_temporaries, folder, name))
        except FileNotFoundError:
            return

    def exists(self, name: str) -> bool:
        return self._call("read", name, partial(self._filesystem.exists, name))

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in the folder, without hidden ones; empty if the folder is missing."""
        try:
            found = self._call("listed", folder, partial(self._filesystem.names, folder))
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name and not name.startswith("."))

    def stamps(self, folder: str) -> dict[str, str]:
        """Name of each file in the folder, without hidden ones -> what changes whenever the file is written.

        It takes one listing; empty if the folder is missing.
        """
        try:
            found = self._call("listed", folder, partial(self._filesystem.stamps, folder))
        except FileNotFoundError:
            return {}
        return {name: found[name] for name in sorted(found) if name and not name.startswith(".")}

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders directly in the folder; empty if it is missing."""
        try:
            return sorted(self._call("listed", folder, partial(self._filesystem.folders, folder)))
        except FileNotFoundError:
            return []

    def delete_folder(self, name: str) -> None:
        """Remove a folder and its whole content, if it exists. No process may be writing there."""
        try:
            self._call("deleted", name, partial(self._filesystem.delete_folder, name))
        except FileNotFoundError:
            return

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        """A path and its Arrow file system, which can be pickled; None for a folder, which needs none."""
        return self._filesystem.arrow(name)

    def _call(self, action: str, name: str, call: Callable[[], T]) -> T:
        """Make the call with retries. `action` (read, written ...) is for the message of the StoreError."""
        try:
            return self._retry(call)
        except FileNotFoundError:
            raise  # a regular answer
        except StoreError:
            raise  # of `checked`, or of a deletion that would leave the store
        except Exception as error:
            raise self._failure(action, name, error) from error

    def _retry(self, call: Callable[[], T]) -> T:
        """Make the call, and repeat it for `RETRY_SECONDS` while its error is transient."""
        try:
            return call()
        except Exception as error:
            if not self._filesystem.is_transient(error):
                raise
            logger.warning(
                "%s is unavailable (%s): retrying for up to %.0f s", self.location, _reason(error), RETRY_SECONDS
            )
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

        return Retrying(
            retry=retry_if_exception(self._filesystem.is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            stop=stop_after_delay(RETRY_SECONDS),
            reraise=True,
        )(call)

    def _failure(self, action: str, name: str, error: Exception) -> StoreError:
        return StoreError(f"{self.locate(name)}: cannot be {action} ({_reason(error)}): {self._filesystem.remedy}")


def replace_file(path: Path, content: bytes) -> None:
    """Write a local file outside a store, replacing any earlier content, as `write_whole` does.

    Raises:
        StoreError: the folder cannot be written to, or the disk is full.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({_reason(error)}): {Folder.remedy}") from error


def _reason(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0] or type(error).__name__
    return redacted(text)
