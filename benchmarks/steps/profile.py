"""Profile of one step."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from scale_ray.methods.scale import Scale
from scale_ray.training.loop import _Meter, _optimiser, _train_step
from steps.case import Case
from steps.clock import WARM_UP, synchronise

OPERATIONS = 12  # lines of the profiler's table


def profile(case: Case) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Title, rows and notes: the parts of a step including its input, and the longest operations of torch.

    Every part is timed between synchronisations. A step on a GPU has none, so the sum is somewhat longer than a step.
    """
    config = case.config()
    method = case.method(config)
    assert isinstance(method, Scale)
    optimiser, meter = _optimiser(method, config.optim), _Meter()
    spent: dict[str, float] = {}

    def step(number: int) -> None:
        meter.add(*_train_step(config, method, method, case.batches, optimiser, number))

    with _timed(spent, case.device, _parts(method, optimiser, case)):
        for number in range(1, 1 + WARM_UP):
            step(number)
        spent.clear()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if case.device.type == "cuda" else [])]
        synchronise(case.device)
        start = time.perf_counter()
        with torch.profiler.profile(activities=activities) as profiled:
            step(1 + WARM_UP)
            synchronise(case.device)
            whole = time.perf_counter() - start
    spent["the rest (Python, learning rate, metrics)"] = whole - sum(spent.values())
    rows = [
        {"part": part, "ms": round(1000 * seconds, 2), "share": f"{seconds / whole:.1%}"}
        for part, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    order = "self_device_time_total" if case.device.type == "cuda" else "self_cpu_time_total"
    print(profiled.key_averages().table(sort_by=order, row_limit=2 * OPERATIONS, max_name_column_width=50))
    notes = [f"{whole * 1000:.0f} ms under the profiler; its longest operations, by their own time:"]
    longest = sorted(profiled.key_averages(), key=lambda event: -getattr(event, order))[:OPERATIONS]
    notes += [f"{event.key}: {getattr(event, order) / 1000:.1f} ms, {event.count} calls" for event in longest]
    title = f"Where a step's time goes: {case.backbone}, {case.side} px, {case.precision}, batch 32 + 32"
    return title, rows, notes


def _parts(method: Scale, optimiser: torch.optim.Optimizer, case: Case) -> list[tuple[str, Any, str]]:
    """Parts of a step: name, and the object and attribute that do the work. Parts do not overlap."""
    return [
        ("input views", case.batches, "source"),
        ("input views", case.batches, "target"),
        ("student forward", method.student, "forward_domains"),
        ("backward", Tensor, "backward"),
        ("teacher forward", method.teacher, "forward"),
        ("losses", method, "_losses"),
        ("class statistics", method.statistics, "update"),
        ("optimiser", optimiser, "step"),
        ("moving average of the teacher", method.teacher, "update_parameters"),
    ]


@contextmanager
def _timed(spent: dict[str, float], device: torch.device, parts: list[tuple[str, Any, str]]) -> Iterator[None]:
    """Within the block, every part adds its seconds to `spent` and is labelled for the profiler."""

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            synchronise(device)
            start = time.perf_counter()
            with record_function(name):
                result = call(*given, **named)
                synchronise(device)
            spent[name] = spent.get(name, 0) + time.perf_counter() - start
            return result

        return timed

    with ExitStack() as stack:
        for name, owner, attribute in parts:
            stack.enter_context(patch.object(owner, attribute, watched(name, getattr(owner, attribute))))
        yield
