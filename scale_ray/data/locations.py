"""Files by path or URL: s3://bucket/image.jpg, gs://…, and whatever else fsspec opens.

Every object store fails in its own way, such as botocore's NoCredentialsError. Here each failure is an OSError.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from scale_ray.data.benchmarks import DataError
from scale_ray.data.work import in_threads
from scale_ray.errors import shown
from scale_ray.urls import is_url, redacted

_REQUESTS = 32  # at once

# What file systems call the version of a file's content, or its time.
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "Last-Modified", "last_modified", "created")


def read_file(location: str) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read.
    """
    if not is_url(location):
        return Path(location).read_bytes()
    with _one_kind_of_error():
        import fsspec

        with fsspec.open(location, "rb") as file:
            return bytes(file.read())


def files_below(url: str) -> list[str]:
    """URLs of the files below a URL, or of itself where it is a file, in ASCII order.

    Raises:
        OSError: it cannot be listed.
    """
    with _one_kind_of_error():
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
        return [str(filesystem.unstrip_protocol(name)) for name in sorted(filesystem.find(path))]


def folders_below(url: str) -> list[str]:
    """Names of the folders directly below a URL, in ASCII order.

    Raises:
        OSError: it cannot be listed.
    """
    with _one_kind_of_error():
        filesystem, path = _opened(url)
        found = filesystem.ls(path, detail=True)
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")


def listed_below(url: str) -> dict[str, list]:
    """Path below a URL, in ASCII order, -> size and version of every file there, of which one changes with its content.

    It takes one request for a thousand files or so. Where a file system tells no version, it is another one each time.

    Raises:
        OSError: it cannot be listed.
    """
    with _one_kind_of_error():
        filesystem, path = _opened(url)
        found = filesystem.find(path, detail=True)
        start = len(path.rstrip("/")) + 1
        return {name[start:]: _state(found[name]) for name in sorted(found)}


def versions(urls: Sequence[str], what: str) -> list[list]:
    """Size and version (ETag, generation or time) of each file, of which one changes with its content.

    Where a file system tells no version, it is another one each time.

    Args:
        urls: of the files.
        what: describes them in the progress display.

    Raises:
        DataError: one of them cannot be reached.
    """
    systems: dict[int, Any] = {}

    def opened(url: str) -> tuple[Any, str]:
        import fsspec

        with _unreachable(url):
            found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        systems[id(found[0])] = found[0]
        return found

    # Opened here, because fsspec would connect anew in every thread.
    where = dict(zip(urls, map(opened, urls), strict=True))
    for system in systems.values():
        system.invalidate_cache()

    def version(url: str) -> list:
        filesystem, path = where[url]
        with _unreachable(url):
            return _state(filesystem.info(path))

    return list(in_threads(version, urls, f"versions of {what}", threads=_REQUESTS)) if urls else []


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, as it is now, and the path in it."""
    import fsspec

    found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    found[0].invalidate_cache()
    return found


def _state(about: Mapping[str, Any]) -> list:
    return [about.get("size"), str(next((about[key] for key in _VERSIONS if about.get(key)), uuid4()))]


def unreachable(location: str, error: OSError) -> DataError:
    return DataError(
        f"{shown(redacted(location))}: cannot be read ({reason_of(error)}): check the path and your access"
    )


def reason_of(error: OSError) -> str:
    """Why, in one line."""
    return error.strerror or str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def _unreachable(url: str) -> Iterator[None]:
    try:
        with _one_kind_of_error():
            yield
    except OSError as error:
        raise unreachable(url, error) from None


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error).partition("\n")[0] or type(error).__name__) from error
