"""Stored predictions: what a trial's student predicts for its target's images, beside the record.

The file is a .npz that numpy opens without pickle. Its images are those of the target domain whose digest the record
has among its inputs, in the domain's order: sorted by class and file, without the record's `skipped` images.

| array | shape, type | what |
|---|---|---|
| probabilities | (N, K) float16 | class probabilities |
| labels | (N,) int32 | predicted class of the unrounded probabilities, which decides between equal ones |
| classes | (K,) text | names |
| target | text | digest of the target domain's content |
| sha256 | text | of the trial's id and of all of the above |

Uncompressed it has 2 N K + 4 N bytes; certain predictions compress well.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scale_ray.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ARRAYS = ("probabilities", "labels", "classes", "target")


@dataclass(frozen=True)
class StoredPredictions:
    """A student's predictions on the N images of a target domain, in order.

    Attributes:
        probabilities: (N, K) float16.
        labels: (N,) int32, the predicted classes.
        classes: names of the K classes.
        target: digest of the domain's content.
    """

    probabilities: "NDArray[np.float16]"
    labels: "NDArray[np.int32]"
    classes: tuple[str, ...]
    target: str

    @classmethod
    def of(cls, probabilities: "NDArray[np.float64]", classes: Sequence[str], target: str) -> "StoredPredictions":
        """From unrounded probabilities (N, K)."""
        import numpy as np  # a command that reads no predictions starts without it

        labels = probabilities.argmax(axis=1).astype(np.int32)
        return cls(probabilities.astype(np.float16), labels, tuple(classes), target)


def to_bytes(predictions: StoredPredictions, trial_id: str) -> bytes:
    import numpy as np

    arrays = {
        "probabilities": predictions.probabilities,
        "labels": predictions.labels,
        "classes": np.array(predictions.classes, dtype=np.str_),
        "target": np.array(predictions.target, dtype=np.str_),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, sha256=np.array(_digest(arrays, trial_id)))  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes, record: Record) -> StoredPredictions:
    """Inverse of `to_bytes`, for the trial of this record.

    Raises:
        ValueError: the content is damaged, or the predictions are not those that the record counts.
    """
    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in _ARRAYS}
            digest = str(opened["sha256"])
    except Exception as error:  # a damaged archive fails with many types of error
        raise ValueError(f"not readable as predictions ({str(error).partition(chr(10))[0]})") from error
    if digest != _digest(arrays, record.id):
        raise ValueError("not the predictions that were written for this trial")
    found = StoredPredictions(
        arrays["probabilities"], arrays["labels"], tuple(arrays["classes"].tolist()), str(arrays["target"])
    )
    if not _fits(found, record):
        raise ValueError("its predictions are not those that the record counts")
    return found


def _fits(found: StoredPredictions, record: Record) -> bool:
    """Whether classes, domain and the number of images by predicted class are those of the record."""
    import numpy as np

    result = record.result
    if result is None or found.target != record.inputs.get("target") or list(found.classes) != result.classes:
        return False
    counts = np.bincount(found.labels, minlength=len(found.classes))
    counted = result.predicted or np.sum(result.confusion, axis=0)  # older records have only the matrix
    return bool(np.array_equal(counts, counted))


def _digest(arrays: Mapping[str, "NDArray[Any]"], trial_id: str) -> str:
    import numpy as np

    digest = hashlib.sha256(trial_id.encode())
    for name in _ARRAYS:
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
