"""The confusion matrix of one trial."""

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from scale_ray.records import Record
from scale_ray.report.figures.style import BLUE, INK, SMALL, blank, style
from scale_ray.study import describe


def confusion_matrix(record: Record) -> Figure | None:
    """A trial's confusion matrix on the target (rows sum to 100 %), with the accuracy of each class beside it.

    Returns:
        None if the trial failed or its record has no confusion matrix.
    """
    result = record.result
    if result is None or not result.confusion:
        return None
    counts = np.array(result.confusion, dtype=float)
    images = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = 100 * counts / images[:, None]  # NaN for a class without images
    names = [f"{name}{' (no image)' * (not count)}" for name, count in zip(result.classes, images, strict=True)]
    many = len(names)
    size = max(2.6, 0.14 * many, 0.36 * min(many, 12))
    with style():
        figure = blank(1.45 * size + 1.6, size + 1.3, f"{record.config.data.benchmark}, {describe(record.config)}")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 0.4))
        # Shades grow with the root of the share, so that a confusion of 4 % of the images is visible.
        image = left.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100), aspect="auto")
        left.grid(False)
        if many <= 12:
            for (row, column), share in np.ndenumerate(shares):
                text = "" if np.isnan(share) else f"{share:.0f}"
                left.text(column, row, text, ha="center", va="center", color="white" if share > 40 else "black")
        else:
            figure.colorbar(image, ax=right, label="share of the class (%)")
        left.set_xticks(range(many), result.classes, rotation=90, fontsize=SMALL)
        left.set_yticks(range(many), names, fontsize=SMALL)
        left.tick_params(length=0)
        left.set_xlabel("predicted")
        left.set_ylabel("true class")
        right.barh(range(many), np.nan_to_num(shares.diagonal()), height=0.7, color=BLUE)
        right.axvline(result.target_accuracy, color=INK, linewidth=1, linestyle="--")
        right.set_xlim(0, 100)
        right.grid(axis="y", visible=False)
        right.tick_params(axis="y", length=0)
        right.set_xlabel(f"accuracy (%), all: {result.target_accuracy:.1f}")
    return figure
