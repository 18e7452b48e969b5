"""An index of a store's records: what tables read of each, in one file, so that only what has changed is read again.

    STORE/index    a line with digests, and a Parquet table

It is made from the records and holds the stamp of each, as the listings before and after the record was read gave it. A
row counts only where the listing gives the same stamp now. Other code takes none of the rows, and a damaged index is
made anew.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from scale_ray.config import RECIPE_VERSION
from scale_ray.errors import UserError
from scale_ray.report.read.rows import OUTCOME, Row, Rows, Unread, without_garbage_collection
from scale_ray.store import INDEX, Store, StoreError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

WORTH = 256  # records that a look must have read before it writes the index

_OWN = ["cell", "stamp", "config", "seed", "code"]


def read_rows(store: Store) -> Rows:
    """All plans and records of a store. What the index has is not read again.

    Raises:
        StoreError: at the first file that cannot be read.
    """
    rows = Rows()
    with without_garbage_collection():
        for plan in store.plan_files():
            rows.add_plan(plan, store)
        stamps = store.record_stamps()
        if unread := stamps.keys() - restore(store, rows, stamps):
            for record in store.records_as(Unread, sorted(unread)):
                rows.add(record, store)
        keep(store, rows, stamps, len(unread))
    return rows


def restore(store: Store, rows: Rows, stamps: Mapping[str, str]) -> Set[str]:
    """Add what the index has of records with these stamps (`Store.record_stamps`), and return their cells."""
    if len(stamps) < WORTH:
        return frozenset()
    import pyarrow as pa

    try:
        content = store.files.read(INDEX)
        found = {} if content is None else dict(_rows_of(content, stamps))
        rows.restore(found)
        return found.keys()
    except (UserError, pa.ArrowException) as error:
        logger.info("%s is made anew: %s", store.files.locate(INDEX), error)
        return frozenset()


def keep(store: Store, rows: Rows, stamps: Mapping[str, str], unread: int) -> None:
    """Write the index, if it lacked so many records that this is worth while.

    A store to which nothing can be written stays without one.

    Args:
        stamps: as they were before the records were read.
        unread: records that were not in the index.
    """
    if unread < WORTH:
        return
    try:
        now = store.record_stamps()
        # A file that was written since the listing was read either before or after that.
        same = {cell for cell, stamp in stamps.items() if now.get(cell) == stamp}
        found = [(cell, row) for cell, row in rows.of_records().items() if cell in same]
        if found:
            store.files.write(INDEX, _content(found, stamps))
    except StoreError as error:
        logger.info("no index: %s", error)


def _content(found: Sequence[tuple[str, Row]], stamps: Mapping[str, str]) -> bytes:
    """The file of an index with these rows."""
    import pyarrow as pa
    from pyarrow import parquet

    own = [(cell, stamps[cell], row.config, row.seed, json.dumps(row.code, sort_keys=True)) for cell, row in found]
    columns = dict(zip(_OWN, zip(*own, strict=True), strict=True))
    columns |= dict(zip(OUTCOME, zip(*(row.outcome for _, row in found), strict=True), strict=True))
    table = io.BytesIO()
    parquet.write_table(pa.table({name: _array(values) for name, values in columns.items()}), table, compression="zstd")
    return _head(table.getvalue()) + table.getvalue()


def _rows_of(content: bytes, stamps: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """The rows of the index whose records have not changed since."""
    from pyarrow import parquet

    table = memoryview(content)[content.find(b"\n") + 1 :]
    if not content.startswith(_head(table)):
        raise StoreError("it is damaged, or other code made it")
    found = parquet.read_table(io.BytesIO(table))
    columns = {name: _values(found[name]) for name in found.column_names}
    outcomes = zip(*(columns[name] for name in OUTCOME), strict=True)
    for cell, stamp, config, seed, code, outcome in zip(*(columns[name] for name in _OWN), outcomes, strict=True):
        if stamps.get(cell) == stamp:
            yield cell, Row(config, seed, outcome, json.loads(code))


def _values(column: "pa.ChunkedArray") -> list[Any]:
    """A column as Python objects, one for each distinct value where it is stored so."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column.to_pylist()
    found: list[Any] = []
    for chunk in column.chunks:
        levels = chunk.dictionary.to_pylist()
        found += [None if code is None else levels[code] for code in chunk.indices.to_pylist()]
    return found


def _array(values: tuple[Any, ...]) -> "pa.Array":
    """Texts are stored once each: most columns have a few."""
    import pyarrow as pa

    array = pa.array(values)
    return array.dictionary_encode() if pa.types.is_string(array.type) or pa.types.is_binary(array.type) else array


def _head(table: bytes | memoryview) -> bytes:
    """The first line of an index with this table: what made it, and the table's digest."""
    return f"{_MAKER}, table {hashlib.sha256(table).hexdigest()}\n".encode()


def _maker(package: Path) -> str:
    """What rows are made by: any line of the package's code may make other rows of the same records."""
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(path.read_bytes())
    return f"recipe {RECIPE_VERSION}, code {code.hexdigest()}, pydantic {pydantic.VERSION}"


# Of the time of the import: what is installed later is not what makes the rows.
_MAKER = _maker(Path(__file__).parents[2])
