"""What a run spends of its budget, counted while Ray works."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scale_ray.budget import Budget
from scale_ray.store.orders import Orders
from scale_ray.sweep.prices import node_labels, price_in, refuse_no_price, together

if TYPE_CHECKING:
    from scale_ray.sweep.cluster import Footprint
    from scale_ray.sweep.queue import StageQueue

_HOUR = 3600.0

# Seconds between two looks at the nodes and their prices.
_LOOK_SECONDS = 1.0


class Meter:
    """Counts what a run has spent, and orders it to stop when that is its budget.

    Time counts from the meter's making. GPU-hours count while trainings hold their GPUs. Dollars count for every living
    node of the cluster, whoever uses it, once there is one for the trainings.

    Args:
        budget: of the whole run; all rounds of a study with `until` share it.
        clock: seconds that never go back.
        nodes: the labels of each living node.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        clock: Callable[[], float] = time.monotonic,
        nodes: Callable[[], list[Mapping[str, str]]] = node_labels,
    ):
        self.budget = budget
        self._clock, self._nodes = clock, nodes
        self._made, self._counted = clock(), clock()
        self._spent = 0.0
        self._rate = 0.0  # of spending, a second, since it was counted last
        self._gpus = 0.0  # of one training

    @property
    def spent(self) -> float:
        """In the budget's unit."""
        return self._clock() - self._made if self.budget.unit == "seconds" else self._spent

    @property
    def over(self) -> bool:
        return self.spent >= self.budget.amount

    def begin(self, needs: "Footprint") -> None:
        """Trainings of this footprint will run on the Ray that this process is connected to.

        Raises:
            ConfigError: what they spend cannot be counted.
        """
        self._gpus = needs.bundle.get("GPU", 0.0) * needs.workers
        self.budget.refuse_without(self._gpus)
        if self.budget.unit == "GPU-hours":
            self._rate = 0.0  # between two rounds no training held any
            self.count(0)
        elif self.budget.unit == "USD":
            refuse_no_price(self._nodes(), self.budget.told())
            self._add(self._clock(), self._of_nodes())

    def count(self, training: int) -> None:
        """Add what was spent since the last call; from now on, so many trainings hold their resources."""
        now = self._clock()
        if self.budget.unit == "GPU-hours":
            self._add(now, training * self._gpus / _HOUR)
        elif self.budget.unit == "USD" and now - self._counted >= _LOOK_SECONDS:
            self._add(now, self._of_nodes())

    def _of_nodes(self) -> float:
        """Dollars a second of the nodes that live now."""
        return together([price_in(labels) for labels in self._nodes()]) / _HOUR

    def _add(self, now: float, rate: float) -> None:
        self._spent += self._rate * (now - self._counted)
        self._counted, self._rate = now, rate

    def orders(self, given: Callable[[], Orders], queue: "StageQueue") -> Callable[[], Orders]:
        """The orders that are given, and the one to stop when the budget is spent. Whoever asks for them counts."""

        def limited() -> Orders:
            self.count(queue.started)
            orders = given()
            if orders.stop or not self.over:
                return orders
            return orders.model_copy(update={"stop": True, "why": f"the budget of {self.budget.told()} is spent"})

        return limited
