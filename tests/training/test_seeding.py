import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scale_ray.training.seeding import generator, seed_global_generators, step_seed


def test_the_seed_of_a_step_never_changes() -> None:
    assert step_seed(0, "source", 0) == 7587697683765727736
    assert step_seed(3, "target_strong", 19_999) == 4033180504103829679


def test_the_seed_does_not_depend_on_the_process() -> None:
    """`hash()` of a string is salted anew in every process; this must not be."""
    script = "from scale_ray.training.seeding import step_seed; print(step_seed(0, 'source', 0))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(printed) == step_seed(0, "source", 0)


@given(st.integers(0, 2**31 - 1), st.text(max_size=20), st.integers(0, 10**9))
def test_seeds_are_63_bits_wide_and_torch_takes_them(seed: int, stream: str, step: int) -> None:
    value = step_seed(seed, stream, step)
    assert 0 <= value < 2**63
    assert generator(seed, stream, step).initial_seed() == value


def test_no_two_of_many_steps_share_a_seed() -> None:
    keys = [(seed, stream, step) for seed in range(3) for stream in ("source", "target") for step in range(2_000)]
    # Keys whose parts read the same when they are only written one after the other.
    keys += [(1, "1", 11), (11, "1", 1), (1, "11", 1), (1, "1,1", 1), (1, '1", "1', 1)]
    assert len({step_seed(*key) for key in keys}) == len(keys)


def test_a_generator_draws_the_same_whatever_came_before() -> None:
    first = torch.rand(5, generator=generator(1, "weak", 7))
    torch.manual_seed(99)
    torch.rand(3, generator=generator(1, "weak", 6))
    assert torch.equal(torch.rand(5, generator=generator(1, "weak", 7)), first)
    assert not torch.equal(torch.rand(5, generator=generator(1, "weak", 8)), first)
    assert not torch.equal(torch.rand(5, generator=generator(1, "strong", 7)), first)
    assert not torch.equal(torch.rand(5, generator=generator(2, "weak", 7)), first)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(4, generator=generator(0, "source", 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_for_a_step_is_that_of_torch_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(12)
    expected = torch.rand(3)
    queued: list[object] = []
    monkeypatch.setattr(torch.cuda.random, "_lazy_call", lambda *given, **how: queued.append(given))
    seed_global_generators(12, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert queued == []
    torch.manual_seed(12)
    assert queued  # so a call is seen where there is one
