"""The line of waiting stages behaves as a plain list that is searched from its front."""

from hypothesis import given
from hypothesis import strategies as st

from scale_ray.config import TrialConfig
from scale_ray.stage import Stage
from scale_ray.sweep.waiting import Waiting

CONFIG = TrialConfig()


def stage(key: str, parent: str | None = None) -> Stage:
    return Stage(key, CONFIG, 0, 20, parent, ("Clipart",), (), ())


class Plain:
    """The same by looking at every stage each time."""

    def __init__(self) -> None:
        self.waiting: list[Stage] = []
        self.running: dict[str, Stage] = {}
        self.postpone: set[str] = set()

    def names(self) -> list[str]:
        return [each.key for each in self.waiting]

    def ready(self) -> list[Stage]:
        return [each for each in self.waiting if each.parent not in self.names() and each.parent not in self.running]

    def first(self) -> Stage | None:
        return next((each for each in self.ready() if each.key not in self.postpone), None)


# A stage's parent is another of four, so that chains, siblings and orphans all come up.
PARENTS = {"a": None, "b": "a", "c": "a", "d": "b", "e": None, "f": "x", "x": None}
ACTIONS = st.tuples(
    st.sampled_from(["append", "front", "take", "end", "postpone", "recall", "drop", "orphan"]),
    st.sampled_from(sorted(PARENTS)),
)


@given(st.lists(ACTIONS, max_size=60))
def test_as_a_plain_list(actions: list[tuple[str, str]]) -> None:
    line, plain = Waiting(), Plain()
    for action, key in actions:
        is_waiting, is_running = key in plain.names(), key in plain.running
        if action == "append" and not is_waiting and not is_running:
            line.append(stage(key, PARENTS[key]))
            plain.waiting.append(stage(key, PARENTS[key]))
        elif action == "front" and is_running:
            line.put_in_front(plain.running[key])
            plain.waiting.insert(0, plain.running.pop(key))
        elif action == "take" and (taken := plain.first()) is not None:
            assert line.take(taken.key) == taken
            plain.waiting.remove(taken)
            plain.running[taken.key] = taken
        elif action == "end" and is_running:
            del plain.running[key]
            line.ended(key)
        elif action == "postpone" and key in [each.key for each in plain.ready()]:
            line.postpone(key)
            plain.postpone.add(key)
        elif action == "recall":
            line.recall(key)
            plain.postpone.discard(key)
        elif action == "drop" and is_waiting:
            line.drop(key)
            del plain.waiting[plain.names().index(key)]
            plain.postpone.discard(key)
        elif action == "orphan" and is_waiting:
            line.replace(stage(key))
            plain.waiting[plain.names().index(key)] = stage(key)
            plain.postpone.discard(key)
        assert line.first() == plain.first()
        assert line.ready == len(plain.ready())
        assert len(line) == len(plain.waiting)
        for name in PARENTS:
            assert (name in line) == (name in plain.names())
            children = [each for each in plain.waiting if each.parent == name]
            assert line.children(name) == children
            assert line.has_children(name) == bool(children)
