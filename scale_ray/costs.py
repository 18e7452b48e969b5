"""What training costs, estimated from finished records and from measured steps."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from scale_ray.config import TrialConfig
from scale_ray.records import Record

CostKey = tuple[str, str]  # combination or method; backbone and sizes


class Measured:
    """Seconds of a step by `cost_key`: the mean over finished records with steps, evaluation included."""

    def __init__(self, records: Iterable[Record] = ()):
        self._seconds: dict[CostKey, float] = defaultdict(float)
        self._steps: dict[CostKey, int] = defaultdict(int)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        if record.result is not None:
            self.add_steps(cost_key(record.config), record.result.steps, record.provenance.wall_seconds)

    def add_steps(self, key: CostKey, steps: int, seconds: float) -> None:
        """Add a training with so many steps; one without any says nothing of their cost."""
        if steps:
            self._seconds[key] += seconds
            self._steps[key] += steps

    def seconds_per_step(self) -> dict[CostKey, float]:
        return {key: self._seconds[key] / self._steps[key] for key in self._seconds}


def cost_key(config: TrialConfig) -> CostKey:
    """What the cost of a step mostly depends on."""
    return config.approach, f"{config.model.label} {config.data.image_size} px x {config.optim.batch_size}"


def cost_of(key: CostKey, measured: Mapping[CostKey, float]) -> float | None:
    """Seconds of a step; what was not measured counts as the slowest of the same backbone and sizes, else None."""
    alike = [cost for (_, network), cost in measured.items() if network == key[1]]
    return measured.get(key, max(alike)) if alike else None


def estimate_seconds(work: Iterable[tuple[CostKey, int]], measured: Mapping[CostKey, float]) -> float | None:
    """Seconds that so many steps of these costs take, one after the other.

    Args:
        work: (what a step costs, number of steps).
        measured: from `Measured`.

    Returns:
        None where nothing was measured for some backbone and sizes.
    """
    total = 0.0
    for key, steps in work:
        if not steps:  # a method that is measured without training
            continue
        cost = cost_of(key, measured)
        if cost is None:
            return None
        total += cost * steps
    return total


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
