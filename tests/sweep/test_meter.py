"""What a run spends of its budget, by a clock that the tests move."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from scale_ray.budget import Budget, Unit
from scale_ray.config import ConfigError
from scale_ray.store.orders import Orders
from scale_ray.sweep.cluster import Footprint
from scale_ray.sweep.meter import Meter
from scale_ray.sweep.prices import PRICE_LABEL, price_in, together

HOUR = 3600.0
ON_CPUS = Footprint({"CPU": 1.0}, 1, through_train=False)


class Run:
    """A meter, the clock, what trains and what the nodes cost."""

    def __init__(self, amount: float, unit: Unit):
        self.now, self.prices = 50.0, list[str | None]()
        self.queue: Any = SimpleNamespace(started=0)
        self.meter = Meter(Budget(amount, unit), clock=lambda: self.now, nodes=self._nodes)

    def _nodes(self) -> list[Mapping[str, str]]:
        return [{} if price is None else {PRICE_LABEL: price} for price in self.prices]

    def spend(self, hours: float, training: int = 0) -> float:
        """What has been spent after so many hours more in which so many trainings ran."""
        self.meter.count(training)
        self.now += hours * HOUR
        self.meter.count(training)
        return self.meter.spent


def test_time_counts_from_the_first_moment() -> None:
    run = Run(2 * HOUR, "seconds")
    assert run.spend(0.5) == 0.5 * HOUR
    run.meter.begin(ON_CPUS)
    assert run.spend(1.5) == 2 * HOUR
    assert run.meter.over


def test_gpus_count_while_trainings_hold_them() -> None:
    run = Run(10, "GPU-hours")
    run.now += HOUR  # Ray starts
    run.meter.begin(Footprint({"CPU": 4.0, "GPU": 0.5}, 4, through_train=True))
    assert run.spend(1, training=0) == 0
    assert run.spend(1, training=3) == 3 * 0.5 * 4
    assert run.spend(0.5, training=1) == 7
    assert not run.meter.over
    run.meter.begin(Footprint({"CPU": 4.0, "GPU": 1.0}, 1, through_train=False))  # the next round
    assert run.spend(3, training=1) == 10
    assert run.meter.over


def test_between_two_rounds_no_gpu_is_held() -> None:
    run = Run(10, "GPU-hours")
    needs = Footprint({"CPU": 1.0, "GPU": 1.0}, 1, through_train=False)
    run.meter.begin(needs)
    assert run.spend(1, training=2) == 2
    run.now += HOUR
    run.meter.begin(needs)
    assert run.spend(1, training=1) == 3


def test_nodes_cost_as_long_as_they_live() -> None:
    run = Run(5, "USD")
    run.prices = ["0.2", "1.0"]
    run.meter.begin(ON_CPUS)
    assert run.spend(1) == pytest.approx(1.2)
    run.prices = ["0.2", "1.0", "1.0"]
    run.now += 1  # until the next look
    assert run.spend(0.5, training=2) == pytest.approx(2.3, rel=1e-3)
    run.now += HOUR  # between two rounds
    run.meter.begin(ON_CPUS)
    assert run.meter.spent == pytest.approx(4.5, rel=1e-3)


def test_a_node_without_a_price_counts_as_the_dearest() -> None:
    assert together([0.2, None, 1.0, None]) == pytest.approx(3.2)
    assert together([]) == 0
    assert together([None]) == 0


def test_what_cannot_be_counted_is_refused_before_anything_trains() -> None:
    with pytest.raises(ConfigError, match="these trainings use no GPU: give a time"):
        Run(20, "GPU-hours").meter.begin(ON_CPUS)
    run = Run(30, "USD")
    run.prices = [None, None]
    with pytest.raises(ConfigError, match=f"no node of this Ray tells its price: give each the label {PRICE_LABEL}"):
        run.meter.begin(ON_CPUS)


@pytest.mark.parametrize("told", ["cheap", "-1", "nan", "inf"])
def test_a_label_that_is_no_price_is_refused_at_the_beginning_alone(told: str) -> None:
    run = Run(30, "USD")
    run.prices = ["0.5", told]
    with pytest.raises(ConfigError, match=f"{PRICE_LABEL} of a node is '{told}': write dollars an hour"):
        run.meter.begin(ON_CPUS)
    run.prices = ["0.5"]
    run.meter.begin(ON_CPUS)
    run.now += 1
    run.prices = ["0.5", told]  # a node that joins: it counts as one without a price
    run.meter.count(0)
    run.now += HOUR
    run.meter.count(0)
    assert run.meter.spent == pytest.approx(1.0, rel=1e-3)


def test_nodes_are_looked_at_once_a_second() -> None:
    run = Run(30, "USD")
    run.prices = ["3600"]
    run.meter.begin(ON_CPUS)
    run.prices = ["7200"]
    for _ in range(4):
        run.now += 0.5
        run.meter.count(0)
    assert run.meter.spent == pytest.approx(1 * 1 + 2 * 1)


def test_the_labels_of_a_node() -> None:
    assert price_in({PRICE_LABEL: "0.98", "ray.io/node-id": "a"}) == 0.98
    assert price_in({PRICE_LABEL: "0"}) == 0  # a machine of one's own
    assert price_in({}) is None
    assert price_in({PRICE_LABEL: "nan"}) is None


def test_at_the_end_of_the_budget_the_run_is_ordered_to_stop() -> None:
    run = Run(1, "GPU-hours")
    run.meter.begin(Footprint({"GPU": 1.0}, 1, through_train=False))
    given = Orders(places=3)
    orders = run.meter.orders(lambda: given, run.queue)
    run.queue.started = 1
    assert orders() == given
    run.now += 0.9 * HOUR
    assert orders() == given
    run.now += 0.2 * HOUR
    assert orders() == Orders(places=3, stop=True, why="the budget of 1.00 GPU-hours is spent")
    given = Orders(stop=True)  # somebody else's order has its own reason
    assert orders() == given
