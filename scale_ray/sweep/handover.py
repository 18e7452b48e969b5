"""A stage on its way from the driver of a study to the process that trains it.

It lies in the key-value store of Ray's head for as long as it trains. As a parameter of what Ray Tune calls, all stages
of a study would be read at every start of a trial (27,000 of them: 1.6 s and 193 MB); in a trial's config, Tune would
copy it and keep the copies to its end.
"""

from pydantic import TypeAdapter
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from scale_ray.stage import Stage

_STAGE = TypeAdapter(Stage)


class Handover:
    """The stages that a driver hands over.

    Args:
        driver: its id.
    """

    def __init__(self, driver: str):
        self._driver = driver

    def give(self, stage: Stage) -> None:
        """Leave a stage for the process that is to train it, in the place of an earlier one of its key."""
        _internal_kv_put(_place(self._driver, stage.key), _STAGE.dump_json(stage))

    def take_back(self, key: str) -> None:
        """Remove a stage that has ended."""
        _internal_kv_del(_place(self._driver, key))


def handed_over(driver: str, key: str) -> Stage:
    """The stage of that key which this driver has left."""
    content = _internal_kv_get(_place(driver, key))
    assert content is not None, f"driver {driver} has left no stage {key}"
    return _STAGE.validate_json(content)


def _place(driver: str, key: str) -> bytes:
    return f"scale_ray:stage:{driver}:{key}".encode()
