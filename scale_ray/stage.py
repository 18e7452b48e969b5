"""A stage: the part of a training that Ray runs at a time. `training.stages` says which stages a study has.

Needs no torch, so that a process which only passes stages on stays small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `last` of a training.

    Attributes:
        key: names its state in the store; for a cell that shares nothing, the cell's id.
        config: what trains it.
        first: the step that it begins with.
        last: the number of steps that are done when it ends.
        parent: key of the stage that trained the steps before `first`; None where it starts from step 0.
        digests: content digest of every domain that it reads: the source first, then the domains on which it is
            measured. These are the targets of all cells of the study that go through it, finished ones too, because any
            of them may need its state.
        ends: the cells whose records it leaves, one per target domain; empty where other stages go on from it.
        waiting: every cell that cannot be finished without it, `ends` included.
        warm_up: the approach that a warm-up trains, for titles; empty where cells end in the stage.
    """

    key: str
    config: TrialConfig
    first: int
    last: int
    parent: str | None
    digests: Mapping[str, str]
    ends: tuple[Cell, ...]
    waiting: tuple[Cell, ...]
    warm_up: str = ""

    @property
    def steps(self) -> int:
        return self.last - self.first

    @property
    def targets(self) -> tuple[str, ...]:
        """The domains on which it is measured."""
        return tuple(domain for domain in self.digests if domain != self.config.data.source)

    @property
    def weights_digest(self) -> str | None:
        """sha256 of the weights' file; None where the weights are named or random."""
        return self.waiting[0].inputs.get("weights")

    def title(self, fields: Sequence[str] = ()) -> str:
        """In one line: `mnist>mnistm ce+ssl lenet seed 0`, or `…, warm-up of 4 cells` where 4 cells go on from it.

        Args:
            fields: further fields to name, where all of its cells have one value of them.
        """
        config = self.config
        approach = self.warm_up or config.approach
        targets = dict.fromkeys(cell.config.data.target for cell in self.waiting)
        name = f"{config.data.source}>{','.join(targets)} {approach} {config.model.label} seed {config.seed}"
        for path in fields:
            values = {repr(cell.config.value(path)): cell.config.value(path) for cell in self.waiting}
            name += f" {path}={next(iter(values.values()))}" if len(values) == 1 else ""
        return f"{name}, warm-up of {len(self.waiting)} cells" if self.warm_up else name
