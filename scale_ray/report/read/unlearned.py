"""Which trainings did not learn their source, so that their accuracy says nothing about adaptation."""

import pandas as pd

from scale_ray.records import SOURCE_FREE

RULE = (
    "accuracy on held-out source images closer to chance than to that of source_only (mean over the records of the "
    "same source and pre-training), or within a tenth of the way from chance to 100 %; source-free methods leave the "
    "source and are not judged"
)
_ALONE = 0.1


def unlearned(cells: pd.DataFrame) -> pd.Series:
    """Mark the done cells of trainings that did not learn their source: see RULE.

    Chance is 100 % over the number of classes; of older records, which do not have that number, it is 0.

    Args:
        cells: with columns benchmark, source, pre_training, method, status, classes and source_val_accuracy.
    """
    chance = (100 / cells["classes"].astype("float64")).fillna(0.0)
    done = cells["status"] == "done"
    plain = cells["source_val_accuracy"].where(done & (cells["method"] == "source_only"))
    of_source = plain.groupby([cells[name] for name in ("benchmark", "source", "pre_training")]).transform("mean")
    middle = (chance + of_source) / 2
    lowest = chance + _ALONE * (100 - chance)
    bound = middle.where(middle > lowest, lowest)
    return done & (cells["source_val_accuracy"] < bound) & ~cells["method"].isin(SOURCE_FREE)
