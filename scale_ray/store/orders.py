"""Orders to a running study, which the service writes into its store and the study's driver reads every few seconds.

    STORE/orders/<study>.json

Only a driver that the service has started reads them. Where the store is out of reach, the last orders hold.
"""

import logging
import threading
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scale_ray.store.files import Files, StoreError

logger = logging.getLogger(__name__)

_EVERY = 3.0  # seconds between two readings


class Orders(BaseModel):
    """What a study may use.

    Attributes:
        places: trainings at a time, at most; None: as many as the cluster can hold.
        stop: whether to save every training's state, and to end.
        why: told when it stops.
    """

    model_config = ConfigDict(frozen=True)

    places: int | None = Field(None, ge=0)
    stop: bool = False
    why: str = "ordered to stop"


def write_orders(files: Files, study: str, orders: Orders) -> None:
    """Replace the orders to the study of that name.

    Raises:
        StoreError: the store cannot be written to.
    """
    files.make_folders(["orders"])
    files.write(_file(study), orders.model_dump_json().encode())


def read_orders(files: Files, study: str) -> Orders:
    """The orders to the study of that name; without any, it may use everything.

    Raises:
        StoreError: the store cannot be read, or the file holds no orders.
    """
    content = files.read(_file(study))
    if content is None:
        return Orders()
    try:
        return Orders.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"{files.locate(_file(study))}: holds no orders ({error.error_count()} problems)") from None


class Standing:
    """The orders to a study, read again and again in the background, inside its `with` block.

    Args:
        files: of the study's store.
        study: its name.
        every: seconds between two readings.

    Raises:
        StoreError: from `with`, where the first reading fails.
    """

    def __init__(self, files: Files, study: str, *, every: float = _EVERY):
        self._files, self._study, self._every = files, study, every
        self._latest = Orders()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="orders", daemon=True)

    def __enter__(self) -> Self:
        self._latest = read_orders(self._files, self._study)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()

    def __call__(self) -> Orders:
        """The latest orders. It takes no request."""
        return self._latest

    def _listen(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._latest = read_orders(self._files, self._study)
            except StoreError as problem:
                logger.warning("the last orders hold: %s", problem)


def _file(study: str) -> str:
    return f"orders/{study}.json"
