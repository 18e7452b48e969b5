"""Facets: the parts of a frame of cells that may be averaged and compared."""

from collections.abc import Iterable, Sequence

import pandas as pd

from scale_ray.report.read.labels import PRE_TRAINING
from scale_ray.report.read.load import varying_fields

LABELLED = ("method", "losses", "variant", "backbone")  # the columns that labels of rows and columns show


def facets(cells: pd.DataFrame, axes: Sequence[str] = LABELLED) -> Iterable[tuple[str, str, list[str], pd.DataFrame]]:
    """Split cells into parts within which only the axes differ: yields (benchmark, facet, notes, cells).

    A field that differs splits the cells, and the facet names its value. A field whose value follows from the axes
    does not split; a note says that it differs. Pre-training always splits unless it is an axis: the weights of an
    encoder have more influence than what is compared.

    Args:
        cells: as `load` returns them; superseded ones are left out.
        axes: columns of `cells`.
    """
    fields = [name for name in ("backbone", "method", "losses") if name not in axes]
    fields += [name for name in varying_fields(cells) if name not in axes]
    for benchmark, part in cells[~cells["superseded"]].groupby("benchmark"):
        splitting, differing = [], []
        for field in fields:
            values = part[field].unique()
            if len(values) < 2:
                continue
            follows = part.groupby(list(axes))[field].nunique().max() == 1
            if field in PRE_TRAINING:
                unambiguous = part.groupby("pre_training")[field].nunique().max() == 1  # one value per label
                if not (unambiguous and "pre_training" in axes):
                    splitting.append(field)
            elif follows:
                shown = ", ".join(str(value) for value in sorted(values))
                subject = "Methods, combinations or backbones" if "losses" in axes else "Rows or columns"
                differing.append(f"{subject} differ in {field} as well: {shown}.")
            else:
                splitting.append(field)
        if not splitting:
            yield str(benchmark), "", differing, part
            continue
        for shared, share in part.groupby(splitting):
            label = ", ".join(f"{field}={value}" for field, value in zip(splitting, shared, strict=True))
            yield str(benchmark), label, differing, share
