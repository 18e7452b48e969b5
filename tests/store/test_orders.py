"""Orders to a study: written whole, read again and again, and kept where the store is out of reach."""

import time

import pytest
from studies import LIMIT

from scale_ray.store import Store, StoreError
from scale_ray.store.orders import Orders, Standing, read_orders, write_orders


@pytest.fixture
def store(location: str) -> Store:
    return Store(location, create=True)


def test_without_orders_a_study_may_use_everything(store: Store) -> None:
    assert read_orders(store.files, "s") == Orders(places=None, stop=False)


def test_the_latest_orders_hold(store: Store) -> None:
    write_orders(store.files, "s", Orders(places=2))
    write_orders(store.files, "another", Orders(stop=True))
    write_orders(store.files, "s", Orders(places=1))
    assert read_orders(store.files, "s") == Orders(places=1)


def test_what_holds_no_orders_is_named(store: Store) -> None:
    write_orders(store.files, "s", Orders())
    store.files.write("orders/s.json", b'{"places": -1}')
    with pytest.raises(StoreError, match=r"orders/s\.json: holds no orders"):
        read_orders(store.files, "s")


def test_a_driver_hears_of_new_orders_and_keeps_the_last_ones_where_it_cannot_read(store: Store) -> None:
    write_orders(store.files, "s", Orders(places=3))
    with Standing(store.files, "s", every=0.01) as orders:
        assert orders() == Orders(places=3)
        store.files.write("orders/s.json", b"spoilt")
        time.sleep(0.1)
        assert orders() == Orders(places=3)
        write_orders(store.files, "s", Orders(places=0, stop=True))
        latest = time.monotonic() + LIMIT
        while not orders().stop:
            assert time.monotonic() < latest
            time.sleep(0.01)
