"""A stage on its way from the driver of a study to the process that trains it.

It lies in the key-value store of Ray's head for as long as it trains. As a parameter of what Ray Tune calls, all stages
of a study would be read at every start of a trial (27,000 of them: 1.6 s and 193 MB); in a trial's config, Tune would
copy it and keep the copies to its end.
"""

import pickle

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

from scale_ray.stage import Stage


def hand_over(driver: str, stage: Stage) -> None:
    """Leave a stage for the process that is to train it.

    Args:
        driver: the id of the driver, whose stages are its own.
        stage: what is to train; it replaces an earlier one of its key.
    """
    _internal_kv_put(_place(driver, stage.key), pickle.dumps(stage))


def handed_over(driver: str, key: str) -> Stage:
    """The stage of that key which this driver has left."""
    content = _internal_kv_get(_place(driver, key))
    assert content is not None, f"driver {driver} has left no stage {key}"
    stage: Stage = pickle.loads(content)
    return stage


def take_back(driver: str, key: str) -> None:
    """Remove a stage that has ended."""
    _internal_kv_del(_place(driver, key))


def _place(driver: str, key: str) -> bytes:
    return f"scale_ray:stage:{driver}:{key}".encode()
