"""What an adaptation has found, as an object that says so in text and in a notebook."""

import html
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from scale_ray.adaptation.checked import Accuracy
from scale_ray.adaptation.predicted import COLUMNS, Predicted
from scale_ray.adaptation.ties import Tie, tie
from scale_ray.records import DEFAULT_CHOOSER, Record
from scale_ray.report.read.labels import count


@dataclass(frozen=True)
class OnTarget:
    """What was found for one target.

    Attributes:
        target: the domain's name.
        record: of the chosen training.
        predicted: of all candidates.
        scores: columns candidate, the validator's name, `estimated accuracy`; the best first.
        checked: candidate -> its accuracy on the images whose labels were given; empty without.
        votes: validator -> the candidate that it would choose, of those that can compare these candidates.
    """

    target: str
    record: Record
    predicted: Predicted
    scores: pd.DataFrame
    checked: dict[str, Accuracy]
    votes: dict[str, str]

    def tie(self, validator: str) -> Tie:
        """The candidates that may be as good as the chosen one, by the validator that chose."""
        result, data = self.record.result, self.record.config.data
        assert result is not None
        return tie(self.scores, validator, result.images[data.source], result.images[data.target])

    @property
    def agreed(self) -> str:
        """How many validators would choose the same: `2 of 6 validators`; empty where none can compare these."""
        alike = sum(candidate == self.predicted.chosen for candidate in self.votes.values())
        return f"{alike} of {count(len(self.votes), 'validator')}" if self.votes else ""


@dataclass(frozen=True)
class Adaptation:
    """The outcome of `adapt`.

    Attributes:
        out: the folder with predictions.csv, model, report.html, check.csv, domains.toml and the store.
        targets: what was found, target by target.
        left_out: candidates that were not trained, and why.
        interrupted: trainings that are still to do; then there are no targets.
        validator: what chose.
        failed: trainings that failed.
        lacking: targets without predictions, because no candidate was trained on them.
    """

    out: Path
    targets: list[OnTarget] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    interrupted: int = 0
    validator: str = DEFAULT_CHOOSER
    failed: int = 0
    lacking: list[str] = field(default_factory=list)

    @property
    def predictions(self) -> pd.DataFrame:
        """The rows of predictions.csv; none where there are no targets."""
        tables = [each.predicted.table() for each in self.targets]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)

    def _repr_html_(self) -> str:
        rows = self.predictions.head(20).to_html(index=False) if self.targets else ""
        return f"<pre>{html.escape(str(self))}</pre>{rows}"

    def __str__(self) -> str:
        lines = []
        for each in self.targets:
            rivals = each.tie(self.validator).candidates
            toss_up = f", a toss-up with {', '.join(rivals)}" if rivals else ""
            agreed = f"; the choice of {each.agreed}" if each.agreed else ""
            lines.append(f"{each.target}: {each.predicted.chosen} ({self.validator} chose{toss_up}{agreed})")
            lines += [f"  checked: {name}: {accuracy}" for name, accuracy in each.checked.items()]
        lines += [f"{target}: no predictions, as its trainings failed" for target in self.lacking]
        if self.failed:
            lines.append(
                f"{self.failed} trainings failed: `scale-ray report {self.out / 'store'}` has their reasons: mend the "
                "causes, then run the same command again"
            )
        if self.interrupted:
            lines.append(f"interrupted with {self.interrupted} trainings to do: run the same command again to go on")
        if self.targets:
            lines += [f"predictions: {self.out / 'predictions.csv'}", f"report: {self.out / 'report.html'}"]
        return "\n".join(lines)
