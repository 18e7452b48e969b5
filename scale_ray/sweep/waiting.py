"""The stages that wait to run, in order. The time of each call does not grow with their number."""

import heapq
from collections.abc import Iterable

from scale_ray.stage import Stage


class Waiting:
    """Stages in the order of their arrival. A stage is ready when its parent neither waits nor runs.

    A stage that was taken counts as running until it has `ended` or is put back.
    """

    def __init__(self, stages: Iterable[Stage] = ()):
        self._stages: dict[str, Stage] = {}
        self._ranks: dict[str, int] = {}  # lower ones come first
        self._children: dict[str, set[str]] = {}  # parent -> its waiting stages
        self._not_ended: set[str] = set()
        self._ready: set[str] = set()
        self._postponed: set[str] = set()
        # A heap of (rank, key) with every stage that may be taken. `first` skips entries that are out of date.
        self._queue: list[tuple[int, str]] = []
        self._next_rank, self._next_rank_in_front = 0, -1
        for stage in stages:
            self.append(stage)

    def __len__(self) -> int:
        return len(self._stages)

    def __contains__(self, key: object) -> bool:
        return key in self._stages

    @property
    def ready(self) -> int:
        """How many stages do not wait for a parent, postponed ones included."""
        return len(self._ready)

    def append(self, stage: Stage) -> None:
        self._put(stage, self._next_rank)
        self._next_rank += 1

    def put_in_front(self, stage: Stage) -> None:
        self._put(stage, self._next_rank_in_front)
        self._next_rank_in_front -= 1

    def first(self) -> Stage | None:
        """The first ready stage that is not postponed."""
        while self._queue:
            rank, key = self._queue[0]
            if key in self._ready and key not in self._postponed and self._ranks[key] == rank:
                return self._stages[key]
            heapq.heappop(self._queue)
        return None

    def postpone(self, key: str) -> None:
        """Skip the stage until it is recalled."""
        self._postponed.add(key)

    def recall(self, key: str) -> None:
        if key in self._postponed:
            self._postponed.remove(key)
            self._offer(key)

    def take(self, key: str) -> Stage:
        """Remove the stage; it counts as running from now on."""
        stage = self._stages.pop(key)
        del self._ranks[key]
        self._ready.discard(key)
        self._postponed.discard(key)
        if stage.parent is not None:
            siblings = self._children[stage.parent]
            siblings.remove(key)
            if not siblings:
                del self._children[stage.parent]
        return stage

    def ended(self, key: str) -> None:
        """The stage that was taken has ended: its children need not wait for it any more."""
        self._not_ended.discard(key)
        for child in self._children.get(key, ()):
            self._make_ready(child)

    def has_children(self, key: str) -> bool:
        """Whether a waiting stage goes on from that one."""
        return key in self._children

    def children(self, key: str) -> list[Stage]:
        """The waiting stages that go on from that one, in order."""
        return [self._stages[child] for child in sorted(self._children.get(key, ()), key=self._ranks.__getitem__)]

    def drop(self, key: str) -> None:
        """Remove the stage for good."""
        self.take(key)
        self.ended(key)

    def replace(self, stage: Stage) -> None:
        """Replace the waiting stage of the same key."""
        rank = self._ranks[stage.key]
        self.take(stage.key)
        self._put(stage, rank)

    def _put(self, stage: Stage, rank: int) -> None:
        self._stages[stage.key], self._ranks[stage.key] = stage, rank
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
        heapq.heappush(self._queue, (self._ranks[key], key))
