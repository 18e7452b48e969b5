"""The settings of a search and their repeats: which cell is next, and what Optuna is told of it.

The repeats of a setting are cells, one a (pair, seed), in the same order for all settings. The score of a setting is
the mean over its repeats. A setting ends early where its first repeat is stopped on its curve, or where Wilcoxon's
signed-rank test over the repeats so far, on the same (pair, seed) keys, says that it is below the best setting. The
default setting never does.

Everything that another driver needs is in the Optuna study and in the store's records, so a search that was killed can
go on.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.trial import TrialState

from scale_ray.cell import Cell
from scale_ray.config import ConfigError
from scale_ray.records import score
from scale_ray.store import Store, is_current
from scale_ray.training.seeding import step_seed
from scale_ray.training.stages import branch
from scale_ray.tuning.optuna_study import SAMPLERS, values_of
from scale_ray.tuning.search import Search
from scale_ray.tuning.setting import describe_values
from scale_ray.tuning.space import Values, contains, default_setting, rounded, settings, size, warm_ups_meet

# How often a sampler that repeats itself is asked again before an untried setting is taken instead.
_ASKS = 5


@dataclass
class _Open:
    """A setting that has not ended."""

    trial: optuna.Trial
    cells: list[Cell]
    scores: dict[int, float] = field(default_factory=dict)  # by repeat
    out: set[int] = field(default_factory=set)  # repeats that were handed out


class SettingQueue:
    """Hands out the settings of a search cell by cell.

    A cell that the store answers is not handed out: its record has its score. Cells of one setting are handed out one
    at a time as long as new settings can be begun instead, because each result may make the next ones unnecessary.

    Args:
        search: what is searched.
        optuna_study: of the search. Trials that were left running are continued.
        store: keeps the records.
        still_owned: called before Optuna is asked or told anything; raises where this driver no longer may.
    """

    def __init__(
        self,
        search: Search,
        optuna_study: optuna.Study,
        store: Store,
        still_owned: Callable[[], None] = lambda: None,
    ):
        self._search, self._optuna_study, self._store = search, optuna_study, store
        self._still_owned = still_owned
        self._share = warm_ups_meet(search.space, search.base)
        if "base_config" not in optuna_study.user_attrs:  # says what the default setting is, before any record
            optuna_study.set_user_attr("base_config", search.base.model_dump(mode="json"))
        optuna_study.pruner = _wilcoxon() if search.compare_repeats else NopPruner()
        self._tried: dict[str, int] = {}  # values as text -> the first trial that has them
        self._open: dict[int, _Open] = {}
        self._values: dict[int, Values] = {}
        self._out: dict[str, tuple[int, int]] = {}  # id of a cell that was handed out -> setting, repeat
        for trial in optuna_study.get_trials(deepcopy=False):
            if trial.state.is_finished() and "duplicate_of" not in trial.user_attrs:
                self._tried[describe_exactly(values_of(trial))] = trial.number
        for trial in optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._seed_sampler(trial.number)  # a driver may have been killed between two values of a setting
            self._begin(optuna.Trial(optuna_study, trial._trial_id))

    @property
    def begun(self) -> int:
        """How many distinct settings were asked for."""
        return len(self._tried)

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def left(self) -> int:
        """How many settings have not ended, including those that were not asked for yet."""
        return len(self._open) + max(0, self._search.settings - self.begun)

    @property
    def over(self) -> bool:
        """Whether all settings have ended."""
        return not self.left

    def best(self) -> tuple[int, float] | None:
        """(number, score) of the best setting whose repeats are all done."""
        done = self._optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return max(((each.number, each.value or 0.0) for each in done), key=lambda pair: pair[1], default=None)

    def is_default(self, number: int) -> bool:
        """Whether it is the default setting, which is never ended early: whatever is chosen is compared with it."""
        return self._tried.get(describe_exactly(default_setting(self._search.space, self._search.base))) == number

    @property
    def out(self) -> list[str]:
        """Ids of the cells that were handed out and have not ended."""
        return list(self._out)

    def position(self, cell: str) -> tuple[int, int]:
        """(setting, repeat) of a cell that was handed out."""
        return self._out[cell]

    def title(self, cell: str) -> str:
        """`setting 7 (losses.threshold=0.8), mnist>mnistm seed 0`."""
        number, repeat = self._out[cell]
        return f"setting {number} ({describe_values(self._values[number])}), {self._search.repeats[repeat]}"

    def next(self) -> Cell | None:
        """The next cell to train; None where the others wait for those handed out, or nothing is left."""
        self._still_owned()
        for opened in list(self._open.values()):
            if not opened.out and (cell := self._next_of(opened)):
                return cell
        while self.begun < self._search.settings:
            begun = self._ask()
            if begun and (cell := self._next_of(begun)):
                return cell
        for opened in list(self._open.values()):
            if cell := self._next_of(opened):
                return cell
        return None

    def ended(self, cell: str) -> None:
        """The cell has left its record, done or failed."""
        self._still_owned()
        number, repeat = self._out.pop(cell)
        opened = self._open.get(number)
        if opened is None:  # the setting has ended in the meantime
            return
        opened.out.discard(repeat)
        record = self._store.read_record(cell)
        if is_current(record):
            self._take_score(opened, repeat)
        else:
            failure = record.failure if record else None
            why = f"{failure.kind}: {failure.message.partition(chr(10))[0]}" if failure else "no record"
            self._end(opened, TrialState.FAIL, reason=f"{self._search.repeats[repeat]}: {why}")

    def stop(self, cell: str, step: int) -> None:
        """The cell, a first repeat, ends early and with it its setting. Optuna is told at once, in case of a kill."""
        self._still_owned()
        number, repeat = self._out.pop(cell)
        opened = self._open[number]
        opened.trial.set_user_attr("stopped", {"repeat": repeat, "step": step})
        self._end(opened, TrialState.PRUNED, reason=f"stopped at step {step} of {self._search.repeats[repeat]}")

    def add_point(self, cell: str, step: int, value: float) -> None:
        """Keep a point of a first repeat's curve for the stopping rule of another driver."""
        self._still_owned()
        trial = self._open[self._out[cell][0]].trial
        curve = [point for point in trial.user_attrs.get("curve", []) if point[0] < step]
        trial.set_user_attr("curve", [*curve, [step, value]])

    def curves(self) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """(number, [(step, score), …] of the first repeat) of every setting with such points."""
        for trial in self._optuna_study.get_trials(deepcopy=False):
            if "curve" in trial.user_attrs:
                yield trial.number, [(step, value) for step, value in trial.user_attrs["curve"]]

    # One setting

    def _ask(self) -> _Open | None:
        """Begin a new setting; None where its values are no valid config, so that it has failed."""
        for attempt in range(_ASKS + 1):
            self._still_owned()
            is_default = self._enqueue_default()
            seed = self._seed_sampler(len(self._optuna_study.get_trials(deepcopy=False)))
            is_last = attempt == _ASKS and size(self._search.space) is not None
            if not is_default and (self._search.sampler == "grid" or is_last):
                self._enqueue_untried(seed)
            before = self.begun
            begun = self._begin(self._optuna_study.ask())
            if self.begun > before:
                return begun
        raise AssertionError(f"sampler {self._search.sampler!r} repeats itself on a continuous space")

    def _seed_sampler(self, number: int) -> int:
        """Let a sampler propose the setting of that number, and return its seed.

        What it proposes is a function of (seed, number) and the results so far: a killed search asks as an undisturbed
        one would.
        """
        seed = step_seed(self._search.seed, "setting", number) % 2**32
        self._optuna_study.sampler = SAMPLERS[self._search.sampler](seed)
        return seed

    def _enqueue_default(self) -> bool:
        """Let the default setting be the next one, unless it was tried: whatever is chosen is compared with it."""
        usual = default_setting(self._search.space, self._search.base)
        waiting = self._optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if describe_exactly(usual) in self._tried or waiting:
            return False
        if contains(self._search.space, usual):
            self._optuna_study.enqueue_trial(usual)
        else:  # no sampler can propose it, so its values are kept beside those that samplers read
            self._optuna_study.enqueue_trial({}, user_attrs={"default": usual})
        return True

    def _enqueue_untried(self, seed: int) -> None:
        untried = [
            values for values in settings(self._search.space) if describe_exactly(rounded(values)) not in self._tried
        ]
        chosen = 0 if self._search.sampler == "grid" else np.random.default_rng(seed).integers(len(untried))
        self._optuna_study.enqueue_trial(untried[chosen])

    def _begin(self, trial: optuna.Trial) -> _Open | None:
        """Open a trial as a setting. Values that a killed driver had not sampled yet are sampled now."""
        values = trial.user_attrs.get("default") or rounded(
            {path: _suggest(trial, path, each) for path, each in self._search.space.items()}
        )
        text = describe_exactly(values)
        first = self._tried.setdefault(text, trial.number)
        if first != trial.number:
            trial.set_user_attr("duplicate_of", first)
            self._optuna_study.tell(trial, state=TrialState.FAIL)
            return None
        self._values[trial.number] = values
        opened = _Open(trial, [])
        self._open[trial.number] = opened
        try:
            opened.cells = [self._search.cell(values, repeat) for repeat in self._search.repeats]
        except ConfigError as error:
            self._end(opened, TrialState.FAIL, reason=str(error))
            return None
        cells = {str(repeat): cell for repeat, cell in zip(self._search.repeats, opened.cells, strict=True)}
        trial.set_user_attr("cells", {repeat: cell.id for repeat, cell in cells.items()})
        if self._share:
            stages = {repeat: branch(cell)[0] for repeat, cell in cells.items()}
            warm_ups = {repeat: (stage.key, stage.last) for repeat, stage in stages.items() if not stage.ends}
            trial.set_user_attr("warm_ups", warm_ups)
        return opened

    def _next_of(self, opened: _Open) -> Cell | None:
        for repeat, cell in enumerate(opened.cells):
            if repeat in opened.scores or repeat in opened.out:
                continue
            if repeat and self._search.early_stop != "none" and 0 not in opened.scores:
                return None
            if not self._store.answers(cell.id):
                opened.out.add(repeat)
                self._out[cell.id] = (opened.trial.number, repeat)
                return cell
            self._take_score(opened, repeat)
            if opened.trial.number not in self._open:
                return None
        return None

    def _take_score(self, opened: _Open, repeat: int) -> None:
        """Read a repeat's score; end the setting where it was the last, or where the others are not worth training."""
        record = self._store.read_record(opened.cells[repeat].id)
        assert record is not None
        assert record.result is not None
        try:
            value = score(record.result, self._search.validator)
        except ConfigError as error:
            return self._end(opened, TrialState.FAIL, reason=str(error))
        self._still_owned()  # reading the record may have taken long
        opened.scores[repeat] = value
        if repeat not in self._optuna_study.get_trials(deepcopy=False)[opened.trial.number].intermediate_values:
            opened.trial.report(value, repeat)
        if len(opened.scores) == len(opened.cells):
            self._end(opened, TrialState.COMPLETE, value=fmean(opened.scores.values()))
        elif not self.is_default(opened.trial.number) and opened.trial.should_prune():
            reason = f"below the best setting on {len(opened.scores)} of {len(opened.cells)} repeats"
            self._end(opened, TrialState.PRUNED, reason=reason)
        return None

    def _end(self, opened: _Open, state: TrialState, *, value: float | None = None, reason: str = "") -> None:
        self._still_owned()
        if reason:
            opened.trial.set_user_attr("reason", reason)
        self._optuna_study.tell(opened.trial, value, state, skip_if_finished=True)
        del self._open[opened.trial.number]


def _wilcoxon() -> BasePruner:
    """Ends a setting at p < 0.1 of the one-sided test, which needs at least four repeats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # constraints.txt names the version that was tried
        return WilcoxonPruner(p_threshold=0.1)


def describe_exactly(values: Mapping[str, Any]) -> str:
    """The same text for equal values."""
    return repr(sorted(values.items()))


def _suggest(trial: optuna.Trial, path: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            path, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_categorical(path, distribution.choices)  # type: ignore[attr-defined]
