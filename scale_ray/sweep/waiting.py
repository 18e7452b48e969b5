"""The stages that wait for their turn, in order. No call takes longer because more of them wait."""

import heapq
from collections.abc import Iterable

from scale_ray.training.stages import Stage


class Waiting:
    """Stages in the order in which they came. One is ready when its parent has ended: neither waits nor runs.

    A stage that is taken counts as running until it has `ended`, or is put in again.
    """

    def __init__(self, stages: Iterable[Stage] = ()):
        self._stages: dict[str, Stage] = {}
        self._places: dict[str, int] = {}  # lower ones come first
        self._children: dict[str, set[str]] = {}  # parent -> those of its stages that wait
        self._not_ended: set[str] = set()
        self._ready: set[str] = set()
        self._put_off: set[str] = set()
        # Every stage that may be taken, by place; of the others it holds entries that are passed over in `first`.
        self._queue: list[tuple[int, str]] = []
        self._next_place, self._next_place_in_front = 0, -1
        for stage in stages:
            self.append(stage)

    def __len__(self) -> int:
        return len(self._stages)

    def __contains__(self, key: object) -> bool:
        return key in self._stages

    @property
    def ready(self) -> int:
        """How many stages wait for no parent, those put off too."""
        return len(self._ready)

    def append(self, stage: Stage) -> None:
        self._put(stage, self._next_place)
        self._next_place += 1

    def put_in_front(self, stage: Stage) -> None:
        self._put(stage, self._next_place_in_front)
        self._next_place_in_front -= 1

    def first(self) -> Stage | None:
        """The first ready stage that is not put off."""
        while self._queue:
            place, key = self._queue[0]
            if key in self._ready and key not in self._put_off and self._places[key] == place:
                return self._stages[key]
            heapq.heappop(self._queue)
        return None

    def put_off(self, key: str) -> None:
        """Pass the stage over until it is recalled."""
        self._put_off.add(key)

    def recall(self, key: str) -> None:
        if key in self._put_off:
            self._put_off.remove(key)
            self._offer(key)

    def take(self, key: str) -> Stage:
        """Remove the stage, which runs from now on."""
        stage = self._stages.pop(key)
        del self._places[key]
        self._ready.discard(key)
        self._put_off.discard(key)
        if stage.parent is not None:
            siblings = self._children[stage.parent]
            siblings.remove(key)
            if not siblings:
                del self._children[stage.parent]
        return stage

    def ended(self, key: str) -> None:
        """The stage, which had been taken, runs no more: its children need not wait for it."""
        self._not_ended.discard(key)
        for child in self._children.get(key, ()):
            self._make_ready(child)

    def has_children(self, key: str) -> bool:
        """Whether any stage that waits goes on from that one."""
        return key in self._children

    def children(self, key: str) -> list[Stage]:
        """Those that wait and go on from that stage, in order."""
        return [self._stages[child] for child in sorted(self._children.get(key, ()), key=self._places.__getitem__)]

    def drop(self, key: str) -> None:
        """Remove the stage for good."""
        self.take(key)
        self.ended(key)

    def replace(self, stage: Stage) -> None:
        """Put the stage in the place of the one with its key."""
        place = self._places[stage.key]
        self.take(stage.key)
        self._put(stage, place)

    def _put(self, stage: Stage, place: int) -> None:
        self._stages[stage.key], self._places[stage.key] = stage, place
        self._not_ended.add(stage.key)
        self._ready.difference_update(self._children.get(stage.key, ()))
        if stage.parent is not None:
            self._children.setdefault(stage.parent, set()).add(stage.key)
        if stage.parent not in self._not_ended:
            self._make_ready(stage.key)

    def _make_ready(self, key: str) -> None:
        self._ready.add(key)
        self._offer(key)

    def _offer(self, key: str) -> None:
        heapq.heappush(self._queue, (self._places[key], key))
