"""Settings and repeats on a real Optuna journal: each once, none lost, whatever kills the driver."""

import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from s3_server import S3Server
from searches import FACTS, FEW, Driver, quality, search, write_done

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.records import Failure, Record
from scale_ray.store import Store, StoredPredictions
from scale_ray.tuning.choice import validators_frame
from scale_ray.tuning.decision import highest
from scale_ray.tuning.optuna_study import open_optuna_study
from scale_ray.tuning.space import size
from scale_ray.tuning.view import view_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def states(driver: Driver) -> list[str]:
    return [trial.state.name for trial in driver.optuna_study.get_trials()]


def test_every_setting_is_trained_on_every_repeat_and_its_score_is_their_mean(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root), store).work()
    assert driver.settings.over
    assert states(driver) == ["COMPLETE"] * 6
    assert len({cell.id for cell in driver.trained}) == len(driver.trained) == 12
    for trial in driver.optuna_study.get_trials():
        scores = [quality(cell.config) for cell in driver.trained if cell.id in trial.user_attrs["cells"].values()]
        assert trial.value == pytest.approx(sum(scores) / 2)
    found = view_of(driver.optuna_study, store).settings
    assert [(each.state, each.repeats, each.steps) for each in found] == [("done", 2, 24)] * 6
    assert found[0].validators["oracle"] == pytest.approx(50 * found[0].validators["im"])


def test_settings_are_scored_among_each_other_where_all_predictions_are_stored(tiny_root: Path, store: Store) -> None:
    """Of four images, setting n of three is wrong on the first n; the ensemble of 0, 1 and 2 is wrong on the first."""
    driver = Driver(search(tiny_root, FEW, settings=3, sampler="grid"), store).work()
    assert "ensv" not in view_of(driver.optuna_study, store).settings[0].validators
    for trial in driver.optuna_study.get_trials():
        labels = np.array([1] * trial.number + [0] * (4 - trial.number))
        counted = {"classes": ["a", "b"], "confusion": [np.bincount(labels, minlength=2).tolist(), [0, 0]]}
        for cell in trial.user_attrs["cells"].values():
            record = store.read_record(cell)
            store.write_record(record.model_copy(update={"result": record.result.model_copy(update=counted)}))
            store.write_predictions(cell, StoredPredictions.of(np.eye(2)[labels], ["a", "b"], record.inputs["target"]))
    found = view_of(driver.optuna_study, store).settings
    assert [setting.validators["ensv"] for setting in found] == [75, 100, 75]
    assert highest(found, "ensv").number == 1
    assert validators_frame(found, "im").set_index("validator").loc["ensv", "choice"] == 1


@pytest.mark.parametrize("killed_after", [0, 1, 3, 6])
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_killed_and_run_again_asks_for_what_an_undisturbed_search_would(
    sampler: str, killed_after: int, tiny_root: Path, tmp_path: Path
) -> None:
    wanted = search(tiny_root, sampler=sampler)
    undisturbed = Driver(wanted, Store(tmp_path / "one", create=True)).work()
    store = Store(tmp_path / "two", create=True)
    first = Driver(wanted, store).work(killed_after)
    lost = first.settings.next()  # handed out, and never heard of again
    assert lost is not None
    again = Driver(wanted, store).work()
    assert again.settings.over
    assert [cell.id for cell in first.trained + again.trained] == [cell.id for cell in undisturbed.trained]
    assert again.values() == undisturbed.values()
    assert states(again) == ["COMPLETE"] * 6


def test_a_record_that_was_written_before_the_kill_is_not_trained_again(tiny_root: Path, store: Store) -> None:
    first = Driver(search(tiny_root), store)
    cell = first.settings.next()
    assert cell is not None
    first.train(cell)  # and Optuna was not told
    again = Driver(search(tiny_root), store).work()
    assert cell.id not in {each.id for each in again.trained}
    assert len(again.trained) == 11
    assert again.optuna_study.get_trials()[0].intermediate_values[0] == quality(cell.config)


def test_killed_before_all_values_were_sampled(tiny_root: Path, store: Store) -> None:
    first = Driver(search(tiny_root), store)
    trial = first.optuna_study.ask()
    trial.suggest_float("losses.threshold", 0.5, 0.95)
    again = Driver(search(tiny_root), store).work()
    assert states(again) == ["COMPLETE"] * 6
    assert again.optuna_study.get_trials()[0].params["losses.threshold"] == trial.params["losses.threshold"]


def test_a_torn_line_of_the_journal_is_dropped(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root), store).work(4)
    assert store.folder is not None
    journal = store.folder / "tuning/try/journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":5,"worker')
    again = Driver(search(tiny_root), store).work()
    assert states(again) == ["COMPLETE"] * 6
    assert journal.read_bytes().startswith(whole)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_small_space_is_searched_whole_and_no_setting_twice(sampler: str, tiny_root: Path, store: Store) -> None:
    wanted = search(tiny_root, FEW, repeats=1, settings=9, sampler=sampler)
    assert size(wanted.space) == 9
    first = Driver(wanted, store).work(4)
    again = Driver(wanted, store).work()
    assert len(set(again.values())) == 9
    assert len({cell.id for cell in first.trained + again.trained}) == len(first.trained + again.trained) == 9
    if sampler == "grid":
        assert again.values() == sorted(again.values())


def test_more_settings_go_on_from_a_finished_search(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root), store).work()
    more = Driver(search(tiny_root, settings=8), store).work()
    assert len(more.trained) == 4
    assert len(set(more.values())) == 8


def test_repeats_of_open_settings_come_before_new_settings_and_one_at_a_time(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, repeats=3, settings=2), store)
    a, b = driver.settings.next(), driver.settings.next()
    assert a is not None
    assert b is not None
    assert (driver.settings.position(a.id), driver.settings.position(b.id)) == ((0, 0), (1, 0))
    driver.train(a)
    driver.settings.ended(a.id)
    second = driver.settings.next()
    assert second is not None
    assert driver.settings.position(second.id) == (0, 1)
    # No setting is left to begin: what is open may run at once.
    rest = [driver.settings.next() for _ in range(3)]
    assert [driver.settings.position(cell.id) for cell in rest if cell] == [(0, 2), (1, 1), (1, 2)]
    assert driver.settings.next() is None
    assert not driver.settings.over


def test_later_repeats_wait_for_the_first_under_early_stopping(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, settings=2, early_stop="asha"), store)
    a, b = driver.settings.next(), driver.settings.next()
    assert a is not None
    assert b is not None
    assert driver.settings.next() is None
    driver.settings.add_point(a.id, 4, 0.25)
    driver.settings.add_point(a.id, 8, 0.5)
    driver.settings.stop(a.id, 8)
    driver.train(b)
    driver.settings.ended(b.id)
    driver.work()
    stopped, done = view_of(driver.optuna_study, store).settings
    assert (stopped.state, stopped.steps, stopped.repeats) == ("stopped", 8, 0)
    assert "step 8 of plain>inverted seed 0" in stopped.reason
    assert (done.state, done.steps, done.repeats) == ("done", 24, 2)
    assert dict(Driver(driver.search, store).settings.curves()) == {0: [(4, 0.25), (8, 0.5)]}


def test_a_hopeless_setting_is_not_run_on_all_repeats(tiny_root: Path, store: Store) -> None:
    """One-sided signed-rank test: with three repeats p is 1/8 at least, with four 1/16, which is below 0.1."""
    best = {"first": 0.9, "other": 0.1}
    seen: list[tuple[float, float]] = []

    def score(config: TrialConfig) -> float:
        key = (config.losses.threshold, config.losses.temperature)
        if key not in seen:
            seen.append(key)
        return (best["first"] if key == seen[0] else best["other"]) + 0.01 * config.seed

    driver = Driver(search(tiny_root, repeats=12, settings=3), store, score).work()
    found = view_of(driver.optuna_study, store).settings
    assert [(each.state, each.repeats) for each in found] == [("done", 12), ("pruned", 4), ("pruned", 4)]
    assert found[1].reason == "below the best setting on 4 of 12 repeats"
    whole = Driver(
        search(tiny_root, repeats=12, settings=3, compare_repeats=False),
        Store(store.location + "2", create=True),
        score,
    )
    assert states(whole.work()) == ["COMPLETE"] * 3


def test_the_default_setting_is_never_ended_early(tiny_root: Path, store: Store) -> None:
    """It is far below the others on each of 12 repeats, and ends after them."""
    usual = search(tiny_root).base.losses

    def score(config: TrialConfig) -> float:
        return (0.1 if config.losses == usual else 0.9) + 0.01 * config.seed

    driver = Driver(search(tiny_root, repeats=12, settings=2), store, score)
    held = driver.settings.next()
    assert held is not None
    driver.work(12)
    assert states(driver) == ["RUNNING", "COMPLETE"]
    driver.train(held)
    driver.settings.ended(held.id)
    assert states(driver.work()) == ["COMPLETE", "COMPLETE"]
    assert [driver.settings.is_default(number) for number in (0, 1)] == [True, False]
    assert Driver(driver.search, store).settings.is_default(0)  # the next driver knows it too


def test_the_same_repeats_are_compared(tiny_root: Path, store: Store) -> None:
    """A setting that is worse on its first repeats only because those are hard for every setting goes on."""
    hard = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1, 4: 0.9, 5: 0.9}
    seen: list[float] = []

    def score(config: TrialConfig) -> float:
        if config.losses.threshold not in seen:
            seen.append(config.losses.threshold)
        return hard[config.seed] + 0.001 * seen.index(config.losses.threshold)

    driver = Driver(search(tiny_root, repeats=6, settings=3), store, score).work()
    assert states(driver) == ["COMPLETE"] * 3


def test_a_failed_cell_fails_its_setting_and_the_rest_goes_on(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, settings=3), store)
    cell = driver.settings.next()
    assert cell is not None
    failure = Failure(kind="TrainingDiverged", message="loss ce is not finite\nmore", traceback="")
    store.write_record(
        Record(id=cell.id, status="failed", config=cell.config, inputs={}, failure=failure, provenance=FACTS)
    )
    driver.settings.ended(cell.id)
    driver.work()
    assert states(driver) == ["FAIL", "COMPLETE", "COMPLETE"]
    failed = view_of(driver.optuna_study, store).settings[0]
    assert failed.state == "failed"
    assert failed.reason == "plain>inverted seed 0: TrainingDiverged: loss ce is not finite"


def test_values_that_do_not_go_together_fail_their_setting(tiny_root: Path, store: Store) -> None:
    wanted = search(tiny_root, ("optim.warmup_steps=2|6", "optim.steps=7|12"), repeats=1, settings=4, sampler="grid")
    driver = Driver(wanted, store).work()
    assert states(driver) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]  # the default, 2 and 12, then in order
    assert "never act" in view_of(driver.optuna_study, store).settings[2].reason


def test_a_shared_warm_up_counts_once(tiny_root: Path, store: Store) -> None:
    wanted = search(tiny_root, ("losses.temperature=0.1|0.2|0.5",), repeats=1, settings=3, sampler="grid")
    driver = Driver(wanted, store).work()
    assert [each.steps for each in view_of(driver.optuna_study, store).settings] == [12, 9, 9]


def test_a_search_goes_on_only_as_it_was_begun(tiny_root: Path, store: Store) -> None:
    Driver(search(tiny_root), store).work(1)
    for other, named in (
        (search(tiny_root, validator="entropy"), "validator was im, is now entropy"),
        (search(tiny_root, repeats=3), "repeats"),
        (search(tiny_root, FEW), "space"),
    ):
        with pytest.raises(ConfigError, match=named):
            Driver(other, store)
    assert Driver(search(tiny_root, sampler="random", seed=3), store).work().settings.over


def test_the_study_in_a_data_base(tiny_root: Path, tmp_path: Path, store: Store) -> None:
    wanted, url = search(tiny_root), f"sqlite:///{tmp_path}/study.db"
    open_optuna_study(store, "try", url, wanted.spec()).ask()
    assert states_of(open_optuna_study(store, "try", url, wanted.spec())) == [TrialState.RUNNING]
    with pytest.raises(ConfigError, match="cannot be used"):
        open_optuna_study(store, "try", f"sqlite:///{tmp_path}/missing/study.db", wanted.spec())
    with pytest.raises(ConfigError, match="no database URL"):
        open_optuna_study(store, "try", "nonsense", wanted.spec())


def states_of(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def test_a_search_whose_store_was_moved_goes_on(tiny_root: Path, tmp_path: Path, store: Store) -> None:
    first = Driver(search(tiny_root), store).work(5)
    first.optuna_study.set_user_attr("spec", {**first.search.spec(), "store": store.location})  # as earlier versions
    moved = Store(shutil.move(store.location, tmp_path / "moved"))
    again = Driver(search(tiny_root), moved).work()
    assert again.settings.over
    assert len(first.trained + again.trained) == 12
    assert "store" not in search(tiny_root).spec()


def test_a_data_base_of_another_stores_search_is_refused(tiny_root: Path, tmp_path: Path, store: Store) -> None:
    wanted, url = search(tiny_root, repeats=1, settings=2), f"sqlite:///{tmp_path}/study.db"
    Driver(wanted, store, url=url).work()
    Driver(wanted, store, url=url)
    with pytest.raises(
        ConfigError, match=r"the search 'try' has 2 settings that are done, and store .+/other has none"
    ):
        Driver(wanted, Store(tmp_path / "other", create=True), url=url)


def test_a_store_that_is_no_folder_needs_a_data_base(tiny_root: Path, s3: S3Server) -> None:
    remote = Store(s3.new_url(), create=True)
    with pytest.raises(ConfigError, match="--study-url"):
        open_optuna_study(remote, "try", None, search(tiny_root).spec())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "tpo"}, "did you mean 'tpe'"),
        ({"sampler": "grid"}, "needs steps or values"),
        ({"space": FEW, "sampler": "cmaes"}, "takes values of a list"),
        ({"space": FEW, "settings": 10}, "the space has 9 settings"),
        ({"early_stop": "ahsa"}, "did you mean 'asha'"),
        ({"space": ("losses.temperature=0.1|0.2",), "settings": 2, "sampler": "cmaes"}, "use tpe"),
    ],
)
def test_a_search_that_cannot_be_run_is_refused(options: dict, said: str, tiny_root: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        search(tiny_root, **options).check()
    search(tiny_root).check()


def test_a_record_without_the_score_fails_its_setting(tiny_root: Path, store: Store) -> None:
    driver = Driver(search(tiny_root, settings=1, validator="snd"), store).work()
    assert states(driver) == ["FAIL"]
    assert "older than this validator" in view_of(driver.optuna_study, store).settings[0].reason


def test_write_done_is_what_the_store_answers(tiny_root: Path, store: Store) -> None:
    cell = search(tiny_root).cell({}, search(tiny_root).repeats[0])
    write_done(store, cell, 1.0)
    assert store.answers(cell.id)
