"""Several drivers in one process, interleaved at every call of the file system, on a made-up clock.

Each driver has two tasks, its work and its heartbeat, as in a real process. One task runs at a time; at every call the
schedule picks the next one, and may kill a driver, pause it, or fail the call. A seed decides everything, so a failing
schedule replays.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scale_ray.store.files import StoreError
from scale_ray.store.leases import Driver

BEAT, EXPIRY = 1.0, 6.0
LATENCY = 0.02  # mean seconds from one step of a task that neither sleeps nor is paused to its next
PATIENCE = 300.0  # seconds on the made-up clock, from the last trouble on, until everything must be done


class Killed(BaseException):
    """Ends the thread of a task whose driver was killed."""


@dataclass(frozen=True)
class Trouble:
    """Probabilities, at each step before the schedule calms down. In half of the schedules one driver has it all."""

    kill: float = 0.0
    pause: float = 0.0
    fail: float = 0.0  # of a call: it raises, without effect, with it, or with an effect that comes later
    slow: float = 0.0  # of a call: it or its answer takes long, while the process goes on


class Task:
    def __init__(self, process: "Process", work: Callable[[], None]):
        self.process, self.work, self.wake = process, work, 0.0
        self.baton = threading.Semaphore(0)
        self.over = False


class Process:
    """A driver's process. `silent` is what makes it an exception: it was paused, or a call of it failed."""

    def __init__(self, number: int):
        self.number, self.killed, self.resumes = number, False, 0.0
        self.driver: Driver | None = None


class Schedule:
    """Runs tasks one at a time, in an order given by the seed.

    Attributes:
        files: name -> content.
        cut: ids of killed drivers whose death is visible at once.
    """

    def __init__(self, seed: int, trouble: Trouble, calm_after: int):
        self.random, self.trouble, self.calm_after = random.Random(seed), trouble, calm_after
        self.now, self.steps, self.calm_at = 0.0, 0, 0.0
        self.files: dict[str, bytes] = {}
        self.processes: list[Process] = []
        self.cut: set[str] = set()
        self.victim = self.random.choice([None, 0, 1])
        self.happened: Counter[str] = Counter()
        self._late: list[tuple[float, Callable[[], None]]] = []
        self._tasks: list[Task] = []
        self._running: Task | None = None
        self._ended = threading.Semaphore(0)
        self._error: BaseException | None = None

    def clock(self) -> float:
        return self.now

    def spawn(self, process: Process, work: Callable[[], None]) -> None:
        self._tasks.append(Task(process, work))
        threading.Thread(target=self._run_task, args=[self._tasks[-1]], daemon=True).start()

    def run(self) -> None:
        """Until every task has ended. Raises what a task raised."""
        self._hand_over()
        self._ended.acquire()
        if self._error is not None:
            raise self._error

    def step(self) -> None:
        """A task is about to touch what others can see: perhaps another one goes first."""
        task = self._running
        assert task is not None
        self._end_killed(task)
        self.steps += 1
        self.now += self.random.expovariate(len(self._tasks) / LATENCY)
        self._check_holders()
        self._land_late()
        self._make_trouble(task)
        self._hand_over()
        task.baton.acquire()
        self._end_killed(task)

    def sleep(self, seconds: float) -> None:
        assert self._running is not None
        self._running.wake = self.now + seconds
        self.step()

    def later(self, effect: Callable[[], None]) -> None:
        """The effect of a call that its caller has given up."""
        self._late.append((self.now + self.random.uniform(0, 2 * EXPIRY), effect))

    def others_are_over(self, process: Process) -> bool:
        return all(task.over or task.process is process for task in self._tasks)

    @property
    def calm(self) -> bool:
        return self.steps >= self.calm_after

    def _run_task(self, task: Task) -> None:
        task.baton.acquire()
        try:
            self._end_killed(task)
            task.work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._error = self._error or error
        task.over = True
        self._hand_over()

    def _end_killed(self, task: Task) -> None:
        if task.process.killed or self._error is not None:
            raise Killed

    def _hand_over(self) -> None:
        """Let the next task run: of those that neither sleep nor are paused, any."""
        left = [task for task in self._tasks if not task.over]
        if not left:
            self._ended.release()
            return
        if self._error is not None:
            ready = left
        else:
            moments = {task: max(task.wake, task.process.resumes) for task in left}
            self.now = max(self.now, min(moments.values()))
            ready = [task for task, moment in moments.items() if moment <= self.now or task.process.killed]
        self._running = self.random.choice(ready)
        self._running.baton.release()

    def _check_holders(self) -> None:
        holders: dict[str, int] = {}
        for process in self.processes:
            if process.killed or process.driver is None:
                continue
            for key in list(process.driver._held):
                if process.driver.leased(key):
                    assert key not in holders, f"{key} is held by drivers {holders[key]} and {process.number}"
                    holders[key] = process.number
        if self.calm:
            self.calm_at = self.calm_at or self.now
            assert self.now < self.calm_at + PATIENCE, "blocked for ever"

    def _land_late(self) -> None:
        for moment, effect in list(self._late):
            if moment <= self.now:
                self._late.remove((moment, effect))
                effect()

    def _make_trouble(self, task: Task) -> None:
        if self.calm:
            return
        if self._meets(self.trouble.slow, task.process):
            task.wake = self.now + self.random.uniform(0, 2 * EXPIRY)
            self.happened["slow"] += 1
        process = self.random.choice(self.processes)
        if process.number and self._meets(self.trouble.kill, process):  # the first is never killed
            process.killed = True
            self.happened["kill"] += 1
            if process.driver is not None and self.random.random() < 0.5:
                self.cut.add(process.driver.id)
        elif self._meets(self.trouble.pause, process):
            process.resumes = self.now + self.random.uniform(0, 3 * EXPIRY)
            self.happened["pause"] += 1

    def _meets(self, probability: float, process: Process) -> bool:
        return self.victim in (None, process.number) and self.random.random() < probability


class Turnstile:
    """A reentrant lock between the tasks of one schedule."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.holder, self.depth = schedule, None, 0

    def __enter__(self) -> None:
        task = self.schedule._running
        while self.holder not in (None, task):
            self.schedule.step()
        self.holder, self.depth = task, self.depth + 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            self.holder = None


class SharedFiles:
    """The calls of `Files`. Each takes effect at one moment, after and before which other tasks may run."""

    location, folder = "made up", None

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def locate(self, name: str) -> str:
        return name

    def make_folders(self, folders: Iterable[str]) -> None:
        pass

    def names(self, folder: str) -> list[str]:
        with self._call():
            return sorted(
                name.removeprefix(f"{folder}/") for name in self.schedule.files if name.startswith(f"{folder}/")
            )

    def read(self, name: str) -> bytes | None:
        with self._call():
            return self.schedule.files.get(name)

    def read_many(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in list(names):
            content = self.read(name)
            if content is not None:
                yield name, content

    def exists(self, name: str) -> bool:
        with self._call():
            return name in self.schedule.files

    def write(self, name: str, content: bytes) -> None:
        def put() -> None:
            self.schedule.files[name] = content

        self._change(put)

    def delete(self, name: str) -> None:
        self._change(lambda: self.schedule.files.pop(name, None))

    purge = delete

    def delete_many(self, names: Iterable[str]) -> None:
        for name in list(names):
            self.delete(name)

    @contextmanager
    def _call(self) -> Iterator[None]:
        self.schedule.step()
        self._perhaps_fail()
        yield
        self.schedule.step()

    def _change(self, effect: Callable[[], object]) -> None:
        self.schedule.step()
        if self._fails():
            outcome = self.schedule.random.choice(["nothing", "effect", "late"])
            if outcome == "effect":
                effect()
            elif outcome == "late":
                self.schedule.later(lambda: effect() and None)
            raise StoreError("made up")
        effect()
        self.schedule.step()

    def _fails(self) -> bool:
        schedule = self.schedule
        assert schedule._running is not None
        fails = not schedule.calm and schedule._meets(schedule.trouble.fail, schedule._running.process)
        schedule.happened["fail"] += fails
        return fails

    def _perhaps_fail(self) -> None:
        if self._fails():
            raise StoreError("made up")
