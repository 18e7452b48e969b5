"""What runs are called."""

from report_stores import cell_of, config_of

from scale_ray.cell import Cell
from scale_ray.track.content import run_of
from scale_ray.track.names import Names


def cells(*thresholds: float, seeds: int = 2) -> list[Cell]:
    return [
        cell_of(config_of("mnist", "mnistm", "ce+ssl", "lenet", seed, **{"losses.threshold": threshold}))
        for threshold in thresholds
        for seed in range(seeds)
    ]


def test_seeds_of_one_config_share_a_group() -> None:
    planned = cells(0.8)
    runs = [run_of(cell, "study", Names(planned)) for cell in planned]
    assert {run.group for run in runs} == {f"mnist>mnistm ce+ssl lenet {runs[0].digest}"}
    assert [run.name for run in runs] == ["mnist>mnistm ce+ssl lenet seed 0", "mnist>mnistm ce+ssl lenet seed 1"]
    assert len(runs[0].digest) == 8


def test_what_tells_cells_of_the_same_words_apart_is_named() -> None:
    planned = [*cells(0.7, 0.8), cell_of(config_of("mnist", "mnistm", "ce", "lenet", 0))]
    groups = {run_of(cell, "study", Names(planned)).group.rpartition(" ")[0] for cell in planned}
    assert groups == {
        "mnist>mnistm ce+ssl lenet losses.threshold=0.7",
        "mnist>mnistm ce+ssl lenet losses.threshold=0.8",
        "mnist>mnistm ce lenet",
    }


def test_equal_words_of_other_studies_or_other_images_have_another_digest() -> None:
    (one,), (other,) = cells(0.8, seeds=1), cells(0.7, seeds=1)
    changed = one.model_copy(update={"inputs": {"target": "sha-repaired"}})
    names = [Names([cell]).of(cell) for cell in (one, other, changed)]
    assert {words for words, _ in names} == {"mnist>mnistm ce+ssl lenet"}
    assert len({digest for _, digest in names}) == 3


def test_fields_of_a_search_are_named_before_its_cells_are_known() -> None:
    (cell,) = cells(0.7, seeds=1)
    assert Names([], fields=["losses.threshold"]).of(cell)[0] == "mnist>mnistm ce+ssl lenet losses.threshold=0.7"


def test_long_words_are_cut_and_still_unlike() -> None:
    thresholds = [0.1 + number / 7 for number in range(2)]
    configs = [
        config_of("m" * 200, "mnistm", "ce+ssl", "lenet", 0, **{"losses.threshold": each}) for each in thresholds
    ]
    planned = [cell_of(config) for config in configs]
    names = [Names(planned).of(cell) for cell in planned]
    assert {len(words) for words, _ in names} == {100}
    assert len({digest for _, digest in names}) == 2


def test_fields_are_named_in_the_order_of_the_config() -> None:
    (cell, *_) = cells(0.7)
    fields = ["optim.batch_size", "losses.threshold"]
    assert Names([], fields).of(cell) == Names([], fields[::-1]).of(cell)
