"""A stage on its way from the driver of a study to the process that trains it.

It lies in the key-value store of Ray's head until it has ended. As a parameter of what Ray Tune calls, all stages of a
study would be read at every start of a trial (27,000 of them: 1.6 s and 193 MB); in a trial's config, Tune would copy
it and keep the copies to its end. What a killed driver has handed over stays on the head until its cluster ends.
"""

from uuid import uuid4

from pydantic import TypeAdapter
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from scale_ray.stage import Stage

_STAGE = TypeAdapter(Stage)


class Handover:
    """The stages that one run of a driver hands over.

    Attributes:
        name: of this run alone. The id of a driver may change while it runs.
    """

    def __init__(self) -> None:
        self.name = uuid4().hex

    def give(self, stage: Stage) -> None:
        """Leave a stage for the process that is to train it, in the place of an earlier one of its key."""
        _internal_kv_put(_place(self.name, stage.key), _STAGE.dump_json(stage))

    def take_back(self, key: str) -> None:
        """Remove a stage that has ended."""
        _internal_kv_del(_place(self.name, key))


def handed_over(handover: str, key: str) -> Stage:
    """The stage of that key in the handover of that name."""
    content = _internal_kv_get(_place(handover, key))
    assert content is not None, f"handover {handover} has no stage {key}"
    return _STAGE.validate_json(content)


def _place(handover: str, key: str) -> bytes:
    return f"scale_ray:stage:{handover}:{key}".encode()
