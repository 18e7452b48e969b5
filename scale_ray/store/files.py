"""Named files under one root: a local or NFS folder, s3://, gs://, or memory:// for tests. Bytes in, bytes out.

Every write is whole: a reader sees the old content or the new one, never half of either, whatever kills the writer. In
a folder that is a temporary file, flushed and renamed; on an object store one PUT is so by itself. Exclusive creation
is a hard link there and a conditional PUT (If-None-Match) here. Credentials and endpoint of an object store come from
the environment, as botocore and google-auth read it (AWS_ENDPOINT_URL too), and are kept nowhere.

An object store that is out of reach is asked again for `PATIENCE_SECONDS` before anything fails.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from scale_ray.store.filesystems import Folder, StoreError, place, whole_file

if TYPE_CHECKING:
    import pyarrow.fs

__all__ = ["Files", "StoreError", "replacing"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_SECONDS = 120.0
_TOGETHER = 256  # files that are in memory at once when many are read


class Files:
    """Files by name (`records/a.json`) under a location. Cheap to open; pickles as its location.

    Args:
        location: a folder, or a URL such as s3://bucket/prefix.
        create: make the folder where it is missing.

    Attributes:
        location: absolute path or URL, without a slash at the end.
        folder: the local folder; None on an object store.

    Raises:
        StoreError: by every method, where the file system refuses or stays out of reach; by the constructor, where the
            URL's scheme is not known, its package is not installed, or the folder cannot be made.
    """

    def __init__(self, location: str | Path, *, create: bool = False):
        self._place = place(str(location))
        self.location = self._place.location
        self.folder = self._place.root if isinstance(self._place, Folder) else None
        if create:
            self.make_folders([""])

    def __reduce__(self) -> tuple[type["Files"], tuple[str]]:
        return Files, (self.location,)

    def locate(self, name: str) -> str:
        """The file's path or URL, for messages."""
        return f"{self.location}/{name}"

    def there(self) -> bool:
        """Whether the folder, or anything under the URL, is there."""
        return self._ask("read", "", self._place.there)

    def make_folders(self, folders: Iterable[str]) -> None:
        """Make folders, and prove that each can be written to: an error now and not after hours of training."""
        try:
            self._patiently(partial(self._place.make, list(folders)))
        except Exception as error:
            raise StoreError(
                f"store {self.location}: cannot be written to ({_reason(error)}): {self._place.alternative}"
            ) from error

    def read(self, name: str) -> bytes | None:
        """The file's content, or None where there is none."""
        try:
            return self._ask("read", name, partial(self._place.read, name))
        except FileNotFoundError:
            return None

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file, in order; one that is gone by now is left out."""
        wanted = list(names)
        for start in range(0, len(wanted), _TOGETHER):
            some = wanted[start : start + _TOGETHER]
            for name, content in zip(some, self._place.read_together(some), strict=True):
                whole = self.read(name) if content is None else content  # again, alone and with patience
                if whole is not None:
                    yield name, whole

    def write(self, name: str, content: bytes) -> None:
        """Put the file in place, whole, instead of what was there. Its folder must be there: `make_folders`."""
        try:
            self._ask("written", name, partial(self._place.write, name, content))
        except FileNotFoundError as error:
            raise self._failure("written", name, error) from error

    def create(self, name: str, content: bytes) -> bool:
        """Put the file in place if there is none of that name: of many who try at once, one gets True.

        Contenders must write different contents: equal content counts as one's own, for the answer to a creation that
        succeeded may be lost on its way.
        """
        try:
            self._ask("written", name, partial(self._place.create, name, content))
        except FileExistsError:
            return self.read(name) == content
        except FileNotFoundError as error:
            raise self._failure("written", name, error) from error
        return True

    def delete(self, name: str, *, holding: bytes | None = None) -> None:
        """Remove the file if it is there; with `holding`, only while that is its content."""

        def delete() -> None:
            if holding is None or self._place.read(name) == holding:
                self._place.delete(name)

        try:
            self._ask("deleted", name, delete)
        except FileNotFoundError:
            return

    def purge(self, name: str) -> None:
        """Remove the file and what killed writers of it left. Nobody may be writing it."""
        self.delete(name)
        self._ask("deleted", name, partial(self._place.sweep, name))

    def exists(self, name: str) -> bool:
        return self._ask("read", name, partial(self._place.exists, name))

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in that folder now; none where it is missing. Hidden ones are left out."""
        try:
            found = self._ask("listed", folder, partial(self._place.names, folder))
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name and not name.startswith("."))

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders directly in that folder now; none where it is missing."""
        try:
            return sorted(self._ask("listed", folder, partial(self._place.folders, folder)))
        except FileNotFoundError:
            return []

    def delete_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there. Nobody may be writing there."""
        try:
            self._ask("deleted", name, partial(self._place.delete_folder, name))
        except FileNotFoundError:
            return

    def arrow(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        """A path, and the Arrow file system that it is on: None for a folder, where Arrow needs none. It pickles."""
        return self._place.arrow(name)

    def _ask(self, done: str, name: str, call: Callable[[], T]) -> T:
        try:
            return self._patiently(call)
        except (FileNotFoundError, FileExistsError):
            raise  # an answer, not a failure
        except Exception as error:
            raise self._failure(done, name, error) from error

    def _patiently(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            if not self._place.passes(error):
                raise
            logger.warning("%s does not answer (%s): asking again", self.location, _reason(error))
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

        return Retrying(
            retry=retry_if_exception(self._place.passes),
            wait=wait_random_exponential(multiplier=0.5, max=5),
            stop=stop_after_delay(PATIENCE_SECONDS),
            reraise=True,
        )(call)

    def _failure(self, done: str, name: str, error: Exception) -> StoreError:
        return StoreError(f"{self.locate(name)}: cannot be {done} ({_reason(error)}): {self._place.remedy}")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a local file that takes `path`'s place, whole and flushed to disk, when the block ends without an error.

    Raises:
        StoreError: the folder cannot be written to, or the disk is full.
    """
    try:
        with whole_file(path) as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({_reason(error)}): {Folder.remedy}") from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0] or type(error).__name__
