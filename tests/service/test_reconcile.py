"""Whatever is lost or restarted, the next rounds bring Ray's jobs into line with what people want."""

from itertools import pairwise
from pathlib import Path

import pytest
from simulated import Desk

from scale_ray.service.exits import STORE_LACKS
from scale_ray.service.reconcile import gpu_hours
from scale_ray.service.watch import Counts
from scale_ray.store.orders import Orders


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_study_runs_as_one_job_until_it_is_done(desk: Desk) -> None:
    desk.add("s")
    desk.rounds()
    assert desk.row("s").state == "starting"
    desk.rounds(3)
    assert (desk.row("s").state, desk.row("s").places) == ("running", 2)
    assert desk.orders("s") == Orders(places=2)
    desk.told["s"] = Counts(4, 0, 4)
    desk.rounds()
    assert desk.row("s").state == "running"  # its job has not ended yet, and is not told to stop
    desk.jobs.end("s-1", "succeeded", 0)
    desk.rounds(2)
    assert (desk.row("s").state, desk.row("s").done, desk.jobs.submitted) == ("done", 4, ["s-1"])


def test_a_study_whose_cells_are_all_there_needs_no_job(desk: Desk) -> None:
    desk.add("s")
    desk.told["s"] = Counts(4, 0, 4)
    desk.rounds()
    assert (desk.row("s").state, desk.jobs.submitted) == ("done", [])


def test_a_job_that_is_gone_while_cells_are_missing_is_submitted_again(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.told["s"] = Counts(1, 0, 4)
    desk.rounds()
    desk.jobs.lose_all()
    desk.rounds(10)
    assert desk.jobs.submitted == ["s-1", "s-2"]
    assert desk.row("s").state == "running"


def test_a_restarted_service_goes_on_with_the_job_that_runs(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.restarted()
    desk.rounds(3)
    assert desk.jobs.submitted == ["s-1"]


def test_a_service_that_died_right_after_it_submitted_submits_no_second_job(desk: Desk) -> None:
    """The job is there under the id that the table does not have yet."""
    desk.add("s")
    desk.jobs.submit("s-1", "", "s")
    desk.rounds(2)
    assert (desk.jobs.submitted, desk.row("s").job, desk.row("s").state) == (["s-1"], "s-1", "running")


def test_jobs_without_a_new_record_wait_longer_each_time_and_end_at_the_limit(desk: Desk) -> None:
    desk.add("s")
    starts = []
    for _ in range(2000):
        desk.rounds()
        if len(desk.jobs.submitted) > len(starts):
            starts.append(desk.moment)
            desk.jobs.end(desk.jobs.submitted[-1], log="Killed\nout of memory")
    waits = [round(after - before, 0) for before, after in pairwise(starts)]
    assert len(starts) == desk.settings.attempts + 1
    assert all(after > before for before, after in pairwise(waits))
    row = desk.row("s")
    assert row.state == "failed"
    assert row.problem == "6 jobs in a row ended without a new record: Killed / out of memory"


def test_a_new_record_forgives_the_jobs_before_it(desk: Desk) -> None:
    desk.add("s", cells=50)
    for done in range(20):
        desk.told["s"] = Counts(done, 0, 50)
        desk.rounds(200)
        desk.jobs.end(desk.jobs.submitted[-1])
    assert len(desk.jobs.submitted) == 20
    assert desk.row("s").state != "failed"


def test_an_error_that_a_person_has_to_mend_is_told_and_not_tried_again(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.jobs.end("s-1", exit_code=2, log="starting\nerror: no such folder: /photos\n")
    desk.rounds(50)
    assert (desk.row("s").state, desk.row("s").problem) == ("failed", "no such folder: /photos")
    assert desk.jobs.submitted == ["s-1"]


def test_what_a_job_said_last_is_told_while_the_next_one_waits(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.jobs.end("s-1", exit_code=1, log="Traceback\nImportError: no torch\n")
    desk.rounds(2)
    waits = desk.row("s")
    assert waits.problem.endswith("it said last: Traceback / ImportError: no torch")
    assert (waits.state, waits.places) == ("waiting", 0)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"gpus": 1}, "a worker needs 1 GPU, and the largest node has 0: ask for less in `run`"),
        ({"cpus": 64}, "a worker needs 64 CPU, and the largest node has 2: ask for less in `run`"),
        ({"workers": 3}, "a training needs 3 CPU, and the cluster has 2: ask for fewer workers"),
    ],
)
def test_a_study_that_no_node_can_hold_says_so(desk: Desk, run: dict[str, int], words: str) -> None:
    desk.add("s", run=run)
    desk.rounds(2)
    assert (desk.row("s").state, desk.row("s").problem, desk.jobs.submitted) == ("waiting", words, [])


def test_a_quota_that_holds_no_training_is_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quotas={"ann": {"places": 0}})
    desk.add("s")
    desk.rounds(2)
    assert desk.row("s").problem == "the quota of ann is smaller than one training: ask the service's operator"


def test_a_study_that_has_failed_holds_no_place(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(3)
    desk.jobs.end("s-1", exit_code=2, log="error: no such folder\n")
    desk.rounds(3)
    assert (desk.row("s").state, desk.row("s").places) == ("failed", 0)


def test_a_store_that_was_out_of_reach_is_tried_again(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.jobs.end("s-1", exit_code=STORE_LACKS, log="error: store s3://b/p: cannot be written")
    desk.rounds(10)
    assert (desk.jobs.submitted, desk.row("s").state) == (["s-1", "s-2"], "running")


def test_failed_cells_end_a_study_and_are_told(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.told["s"] = Counts(3, 1, 4)
    desk.jobs.end("s-1", exit_code=1)
    desk.rounds(50)
    assert desk.row("s").problem == "1 of 4 cells failed: mend the causes, then retry"
    assert desk.jobs.submitted == ["s-1"]
    desk.change("s", state="waiting")  # as `retry` does
    desk.rounds(2)
    assert desk.jobs.submitted == ["s-1", "s-2"]


@pytest.mark.parametrize(("wanted", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_pause_and_cancel_let_the_trainings_save_their_state_first(desk: Desk, wanted: str, state: str) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.change("s", wanted=wanted)
    desk.rounds(3)
    assert (desk.row("s").state, desk.orders("s")) == ("ending", Orders(places=0, stop=True))
    assert desk.jobs.stopped == []
    desk.jobs.end("s-1", exit_code=130)
    desk.rounds(100)
    assert (desk.row("s").state, desk.row("s").job, desk.jobs.submitted) == (state, "", ["s-1"])


def test_a_job_that_does_not_end_by_order_is_ended(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.change("s", wanted="pause")
    desk.rounds(80)
    assert desk.jobs.stopped == []
    desk.rounds(20)
    assert (desk.jobs.stopped, desk.row("s").state) == (["s-1"], "paused")


def test_a_paused_study_goes_on_with_a_new_job(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.change("s", wanted="pause")
    desk.rounds()
    desk.jobs.end("s-1", exit_code=130)
    desk.rounds(2)
    desk.change("s", wanted="run", state="waiting")
    desk.rounds(2)
    assert (desk.row("s").job, desk.row("s").state, desk.orders("s")) == ("s-2", "running", Orders(places=2))


def test_resumed_while_it_ends_it_starts_again_at_once_without_a_fruitless_job(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.change("s", wanted="pause")
    desk.rounds()
    desk.change("s", wanted="run")
    desk.rounds()
    assert desk.row("s").state == "running"
    assert desk.orders("s") == Orders(places=2)  # it may not have read the other order yet
    desk.jobs.end("s-1", exit_code=130)  # it had
    desk.rounds(2)
    assert (desk.jobs.submitted, desk.row("s").fruitless) == (["s-1", "s-2"], 0)


def test_a_restart_ends_the_job_and_starts_another(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.change("s", restart=True)
    desk.rounds()
    assert desk.orders("s").stop
    desk.jobs.end("s-1", exit_code=130)
    desk.rounds(3)
    assert (desk.row("s").state, desk.row("s").restart, desk.row("s").job) == ("running", False, "s-2")


def test_two_owners_with_a_place_each_do_not_wait_for_each_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quota={"places": 1})
    desk.add("a", "ann", cells=100)
    desk.add("b", "ben", cells=100)
    desk.rounds(3)
    assert (desk.row("a").places, desk.row("b").places) == (1, 1)
    assert sorted(desk.jobs.submitted) == ["a-1", "b-1"]


def test_a_higher_priority_overtakes_and_what_it_overtook_goes_on_later(desk: Desk) -> None:
    desk.add("low")
    desk.rounds(2)
    desk.add("high", priority=5, cells=2)
    desk.rounds()
    assert desk.row("low").state == "ending"
    assert desk.orders("low").stop
    assert desk.row("high").state == "starting"
    desk.jobs.end("low-1", exit_code=130)
    desk.rounds(20)
    assert desk.row("low").state == "waiting"
    assert desk.row("low").problem == "other studies use the places, or a quota is used up"
    desk.told["high"] = Counts(1, 0, 2)
    desk.rounds()
    assert (desk.row("high").places, desk.row("low").state) == (1, "starting")
    desk.rounds(2)
    assert (desk.row("low").places, desk.row("low").fruitless) == (1, 0)


def test_a_cluster_that_does_not_answer_changes_nothing(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.jobs.unreachable = True
    desk.rounds(50)
    assert desk.reconciler.problem == "the cluster's head does not answer"
    assert desk.row("s").state == "running"
    desk.jobs.unreachable = False
    desk.rounds(2)
    assert (desk.reconciler.problem, desk.jobs.submitted) == ("", ["s-1"])


def test_a_cluster_that_takes_no_job_is_asked_again(desk: Desk) -> None:
    desk.add("s")
    desk.jobs.refuses = True
    desk.rounds(5)
    assert (desk.row("s").job, desk.row("s").attempt, desk.row("s").problem) == ("", 0, "no agent")
    desk.jobs.refuses = False
    desk.rounds(2)
    assert (desk.row("s").job, desk.row("s").state) == ("s-1", "running")


def test_gpu_hours_of_a_week_are_counted_and_limit_an_owner(tmp_path: Path) -> None:
    desk = Desk(tmp_path, quotas={"ann": {"gpu_hours_a_week": 1}})
    desk.jobs.total = {"CPU": 8.0, "GPU": 2.0}
    desk.add("s", run={"gpus": 1}, cells=100)
    desk.rounds(1 + 31, seconds=58.0)  # 31 rounds of 58 s with two GPUs
    assert gpu_hours([desk.row("s")], desk.moment) == pytest.approx(31 * 58 * 2 / 3600, rel=0.04)
    desk.rounds(3, seconds=58.0)
    assert desk.row("s").state == "ending"
    desk.jobs.end("s-1", exit_code=130)
    desk.rounds(3)
    assert desk.row("s").problem == "the GPU hours of this week are used up"
    desk.rounds(1, seconds=8 * 86400.0)
    desk.rounds(2)
    assert desk.row("s").state == "running"
    assert desk.jobs.submitted == ["s-1", "s-2"]


def test_with_a_number_of_places_the_nodes_that_are_there_now_do_not_count(tmp_path: Path) -> None:
    """A cluster that is scaled down to its head grows for what waits."""
    desk = Desk(tmp_path, places=3)
    desk.jobs.total = {"CPU": 0.0}
    desk.add("s", run={"gpus": 1})
    desk.rounds(2)
    assert (desk.row("s").state, desk.row("s").places) == ("running", 3)


def test_records_that_come_right_before_a_job_ends_are_counted(desk: Desk) -> None:
    desk.add("s")
    desk.rounds(2)
    desk.told["s"], desk.late["s"] = Counts(3, 0, 4), Counts(4, 0, 4)
    desk.jobs.end("s-1", "succeeded", 0)
    desk.rounds()
    assert (desk.row("s").state, desk.row("s").done, desk.jobs.submitted) == ("done", 4, ["s-1"])


def test_a_store_that_left_the_settings_stops_no_other_study(desk: Desk) -> None:
    desk.add("lost")
    desk.change("lost", store="former")
    desk.add("s")
    desk.rounds(3)
    assert desk.row("s").state == "running"
    assert "no longer in the service's settings" in desk.row("lost").problem
