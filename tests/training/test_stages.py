"""Shared stages: the tree has the size that arithmetic gives it, and sharing changes no bit of any record."""

from itertools import permutations
from pathlib import Path

import pytest
from grids import ablation, comparison
from hypothesis import given, settings
from hypothesis import strategies as st

from scale_ray.cell import Cell
from scale_ray.config import Execution, TrialConfig
from scale_ray.methods import METHODS
from scale_ray.methods.clip import ClipMethod
from scale_ray.records import Result
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.training.failures import leaving_failures
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import resolve, without_unread
from scale_ray.training.stages import alone, branch, stage_tree, stages_to_do
from scale_ray.training.trial import run_stage

COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]


def planned(configs: list[TrialConfig], root: Path | None) -> list[Cell]:
    return [resolve(config, root) for config in configs]


def grid(base: TrialConfig, root: Path | None, pairs: list[tuple[str, str]], losses: list[str]) -> list[Cell]:
    configs = [without_unread(config, base, of_methods=False) for config in ablation(base, pairs, losses).cells()]
    return planned(configs, root)


def unread(name: str, config: TrialConfig) -> Cell:
    """A cell whose images do not matter: a domain's digest is its name."""
    return Cell(id=name, config=config, inputs={"source": config.data.source, "target": config.data.target})


def steps(tree: list[Stage]) -> int:
    return sum(stage.steps for stage in tree)


class TestTree:
    """Office-Home's grid: 12 pairs x 8 combinations, a warm-up of a quarter."""

    BASE = TrialConfig().replace({"data.benchmark": "digits", "optim.steps": 400, "optim.warmup_steps": 99})
    PAIRS = tuple(permutations(["mnist", "optdigits", "mnistm", "fonts"], 2))

    def cells(self, **axes: list) -> list[Cell]:
        configs = ablation(self.BASE, self.PAIRS, **{"losses": COMBINATIONS} | axes).cells()
        return [unread(f"cell {number}", config) for number, config in enumerate(configs)]

    def test_steps_of_the_papers_grid(self) -> None:
        """Naive 96 T. Shared: a source's ce to its end (4 T), a pair's ce+ssl warm-up (12 T/4), and 7 x 12 rests."""
        tree = stage_tree(self.cells())
        assert steps([alone(cell) for cell in self.cells()]) == 96 * 400
        assert steps(tree) == 4 * 400 + 12 * 100 + 7 * 12 * 300 == 70 * 400
        assert len(tree) == 4 + 4 + 12 + 7 * 12

    def test_seeds_and_backbones_share_nothing(self) -> None:
        two = stage_tree(self.cells(seeds=[0, 1], backbones=["lenet", "resnet18"]))
        assert steps(two) == 4 * steps(stage_tree(self.cells()))

    def test_every_cell_ends_once_and_waits_for_its_parents(self) -> None:
        tree = stage_tree(self.cells(seeds=[0, 1]))
        ends = [cell.id for stage in tree for cell in stage.ends]
        assert sorted(ends) == sorted(cell.id for cell in self.cells(seeds=[0, 1]))
        places = {stage.key: place for place, stage in enumerate(tree)}
        assert len(places) == len(tree)
        for place, stage in enumerate(tree):
            if stage.parent is not None:
                parent = tree[places[stage.parent]]
                assert places[stage.parent] < place
                assert parent.last == stage.first
                assert {cell.id for cell in stage.waiting} <= {cell.id for cell in parent.waiting}

    def test_ce_waits_for_every_target_of_its_source(self) -> None:
        (trained,) = [stage for stage in stage_tree(self.cells()) if len(stage.ends) > 1][:1]
        assert trained.config.data.source == "mnist"
        assert trained.targets == ("optdigits", "mnistm", "fonts")

    def test_temperature_is_not_read_before_the_warm_up_ends_and_the_threshold_is(self) -> None:
        base = self.cells(losses=["ce+ssl+dist"])[0].config
        for path, values, trunks in (("losses.temperature", (0.1, 0.2), 1), ("losses.threshold", (0.8, 0.9), 0)):
            cells = [unread(str(value), base.replace({path: value})) for value in values]
            assert len([stage for stage in stage_tree(cells) if not stage.ends]) == trunks

    @given(st.data())
    @settings(deadline=None, max_examples=30)
    def test_what_is_left_to_do_answers_exactly_what_is_missing(self, data: st.DataObject) -> None:
        cells = self.cells()
        todo = data.draw(st.lists(st.sampled_from(cells), unique_by=lambda cell: cell.id))
        tree = stage_tree(cells)
        trunks = [stage.key for stage in tree if not stage.ends]
        stored = frozenset(data.draw(st.lists(st.sampled_from(trunks), unique=True)))
        left = stages_to_do(tree, todo, stored)
        assert sorted(cell.id for stage in left for cell in stage.ends) == sorted(cell.id for cell in todo)
        run = {stage.key for stage in left}
        assert not run & stored
        assert all(stage.parent is None or stage.parent in run | stored for stage in left)
        assert steps(left) <= sum(cell.config.optim.steps for cell in todo)
        assert all(stage.first == 0 for stage in left if stage.parent is None)


def results(store: Store) -> dict[str, Result | None]:
    return {record.id: record.result for record in store.records()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"optim.warmup_steps": 3, "model.batch_norm": "joint"},  # the warm-up ends on a point of the curve
                {"losses.pseudo_labels": "prototype"},
                {"data.class_balance": "both", "losses.covariance": "full", "losses.statistics_window": "epoch"},
                {"optim.schedule": "cosine", "losses.statistics_window": "ema", "losses.consistency": "mse"},
                {"model.contrast_level": "spatial", "data.class_balance": "off"},
                {"losses.contrast": "bank", "losses.bank_size": 5},
                {"losses.pseudo_labels": "neighbours"},
            )
        ),
    ],
    ids=str,
)
def test_shared_and_unshared_records_are_equal_bit_for_bit(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, changes: dict
) -> None:
    base = tiny_config.replace(changes)
    execution = Execution(root=tiny_root, checkpoint_every=5)
    some = COMBINATIONS if not changes else ["ce", "ce+ssl", "ce+dist", "ce+ssl+dist+reg"]
    cells = grid(base, tiny_root, [("plain", "inverted"), ("plain", "dark")], losses=some)
    unshared, shared = Store(tmp_path / "unshared", create=True), Store(tmp_path / "shared", create=True)
    for cell in cells:
        run_stage(alone(cell), execution, unshared)
    worked: list[int] = []
    tree = stage_tree(cells)
    for stage in tree:
        run_stage(stage, execution, shared, Progress(on_step=worked.append))
    assert results(shared) == results(unshared)
    assert len(results(shared)) == 2 * len(some)
    assert len(worked) == steps(tree) < 2 * len(some) * base.optim.steps
    assert shared.read_checkpoint(tree[0].key) is None


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(slice(0, 1), id="ce of one target"),
        pytest.param(slice(1, 2), id="a branch alone", marks=pytest.mark.slow),
        pytest.param(slice(0, 3), id="a part", marks=pytest.mark.slow),
        pytest.param(slice(4, 8), id="the other pair", marks=pytest.mark.slow),
        pytest.param(slice(1, 7, 2), id="every second", marks=pytest.mark.slow),
    ],
)
def test_a_study_done_in_parts_gives_the_same_records(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path, first: slice
) -> None:
    """`--limit`, failed cells that are run again, another driver: only some of a stage's cells may be left."""
    base = tiny_config.replace({"evaluate_every": 1})  # points of the curve in the warm-up too
    execution = Execution(root=tiny_root, checkpoint_every=2)
    some = ["ce", "ce+dist", "ce+ssl", "ce+ssl+reg"]
    cells = grid(base, tiny_root, [("plain", "inverted"), ("plain", "dark")], losses=some)
    unshared, parts = Store(tmp_path / "unshared", create=True), Store(tmp_path / "parts", create=True)
    for cell in cells:
        run_stage(alone(cell), execution, unshared)
    tree = stage_tree(cells)
    todo = cells[first]
    for stage in stages_to_do(tree, todo, frozenset()):
        run_stage(stage, execution, parts)
    assert set(results(parts)) == {cell.id for cell in todo}
    rest = [cell for cell in cells if cell.id not in results(parts)]
    for stage in stages_to_do(tree, rest, frozenset(parts.stage_keys())):
        run_stage(stage, execution, parts)
    assert results(parts) == results(unshared)


def test_cells_that_come_one_by_one_share_their_warm_up_bit_for_bit(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    """What a search does: temperatures that nobody knew of when the warm-up was trained."""
    execution = Execution(root=tiny_root, checkpoint_every=5)
    late = {"losses.reg_mean": "image", "losses.terms": "ce+ssl+0.5*dist+reg"}
    configs = [
        tiny_config.replace({"losses.temperature": 0.05}),
        tiny_config.replace({"losses.temperature": 0.5} | late),
    ]
    other = tiny_config.replace({"losses.threshold": 0.5})
    cells = planned([*configs, other], tiny_root)
    unshared, shared = Store(tmp_path / "unshared", create=True), Store(tmp_path / "shared", create=True)
    trunks = []
    for cell in cells:
        run_stage(alone(cell), execution, unshared)
        trunk, rest = branch(cell)
        trunks.append(trunk.key)
        if not shared.has_stage(trunk.key):
            run_stage(trunk, execution, shared)
        run_stage(rest, execution, shared)
    assert results(shared) == results(unshared)
    assert trunks[0] == trunks[1] != trunks[2]
    assert branch(planned([tiny_config.replace({"optim.warmup_steps": 0})], tiny_root)[0])[0].last == 1
    (whole,) = branch(
        planned([tiny_config.replace({"losses.terms": "ce+ssl", "optim.warmup_steps": 12})], tiny_root)[0]
    )
    assert (whole.first, whole.last, whole.parent) == (0, 12, None)


def test_baselines_share_nothing_and_change_nothing_for_the_others(
    tiny_config: TrialConfig, tiny_root: Path, lenet_weights: Path, tmp_path: Path
) -> None:
    """Beside source_only and scale, which share their warm-up, every other method is a stage of its own."""
    names = [name for name in METHODS if name not in ("scale", "source_only")]
    own = {name: {"model.backbone": "clip_tiny"} for name in names if issubclass(METHODS[name], ClipMethod)}
    own |= {"mic": {"views.strong": "masked"}, "prototypes": {"model.weights": str(lenet_weights)}}
    approaches = [{"method": name, "losses.terms": "ce", **own.get(name, {})} for name in ["source_only", *names]]
    approaches.append({"method": "scale", "losses.terms": "ce+dist"})
    study = comparison(tiny_config, [("plain", "inverted")], approaches)
    cells = planned(study.cells(), tiny_root)
    tree = stage_tree(cells)
    (trunk,) = [stage for stage in tree if not stage.ends]
    assert {cell.config.method for cell in trunk.waiting} == {"scale", "source_only"}
    assert len(tree) == len(approaches) + 1
    execution = Execution(root=tiny_root)
    shared, unshared = Store(tmp_path / "shared", create=True), Store(tmp_path / "unshared", create=True)
    for stage in tree:
        run_stage(stage, execution, shared)
    for cell in cells:
        run_stage(alone(cell), execution, unshared)
    assert results(shared) == results(unshared)
    assert len(results(shared)) == len(approaches)


def test_one_of_several_targets_is_interrupted_and_all_of_them_go_on(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, other = Store(tmp_path / "one", create=True), Store(tmp_path / "other", create=True)
    execution = Execution(root=tiny_root, checkpoint_every=4)
    cells = grid(tiny_config, tiny_root, [("plain", "inverted"), ("plain", "dark")], losses=["ce"])
    tree = stage_tree(cells)

    def interrupt(done: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    (one,) = stages_to_do(tree, cells[1:], frozenset())
    with pytest.raises(KeyboardInterrupt):
        run_stage(one, execution, store, Progress(on_step=interrupt))
    worked: list[int] = []
    (both,) = stages_to_do(tree, cells, frozenset())
    run_stage(both, execution, store, Progress(on_step=worked.append))
    assert worked[0] == 9
    for cell in cells:
        run_stage(alone(cell), execution, other)
    assert results(store) == results(other)


def test_studies_with_other_targets_have_states_of_their_own(tiny_config: TrialConfig, tiny_root: Path) -> None:
    """A state holds accuracies on the targets of its study, and no others."""
    trees = [
        stage_tree(grid(tiny_config, tiny_root, pairs, losses=["ce", "ce+dist"]))
        for pairs in ([("plain", "inverted")], [("plain", "dark")], [("plain", "inverted"), ("plain", "dark")])
    ]
    assert len({tree[0].key for tree in trees}) == 3


def test_a_damaged_state_is_dropped_and_trained_again(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store, other = Store(tmp_path / "one", create=True), Store(tmp_path / "other", create=True)
    cells = grid(tiny_config, tiny_root, [("plain", "inverted")], losses=["ce+ssl", "ce+ssl+dist"])
    trunk, child, _ = stage_tree(cells)
    run_stage(trunk, Execution(root=tiny_root), store)
    state = bytearray(store.read_stage(trunk.key) or b"")
    state[len(state) // 2] ^= 1
    store.write_stage(trunk.key, bytes(state))
    run_stage(child, Execution(root=tiny_root), store)
    run_stage(alone(child.ends[0]), Execution(root=tiny_root), other)
    assert results(store) == results(other)
    assert not store.has_stage(trunk.key)


def test_time_is_charged_to_the_cells_that_shared_it(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    cells = grid(tiny_config, tiny_root, [("plain", "inverted"), ("plain", "dark")], losses=["ce", "ce+dist"])
    tree = stage_tree(cells)
    for stage in tree:
        run_stage(stage, Execution(root=tiny_root), store)
    facts = [record.provenance for record in store.records()]
    assert all(fact.charged_seconds is not None and fact.charged_seconds < fact.wall_seconds for fact in facts)
    warm_up = tiny_config.optim.warmup_steps + 1
    shared_steps = {record.config.combination: record.provenance.shared_steps for record in store.records()}
    assert shared_steps == {"ce": tiny_config.optim.steps, "ce+dist": warm_up}


def test_a_stage_that_is_gone_is_trained_again(tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one", create=True), Store(tmp_path / "other", create=True)
    cells = grid(tiny_config, tiny_root, [("plain", "inverted")], losses=["ce+ssl", "ce+ssl+dist"])
    trunk, *rest = stage_tree(cells)
    assert trunk.ends == ()
    worked: list[int] = []
    for stage in rest:  # the trunk never ran
        run_stage(stage, Execution(root=tiny_root), one, Progress(on_step=worked.append))
        run_stage(alone(stage.ends[0]), Execution(root=tiny_root), other)
    assert results(one) == results(other)
    assert worked == 2 * list(range(1, tiny_config.optim.steps + 1))


def test_a_shared_stage_that_fails_leaves_a_reason_for_every_cell_that_waited(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    base = tiny_config.replace({"optim.learning_rate": 1e20, "evaluate_every": 1})
    cells = grid(base, tiny_root, [("plain", "inverted")], losses=["ce", "ce+dist"])
    trunk, *_ = stage_tree(cells)
    execution = Execution(root=tiny_root)
    with pytest.raises(ValueError, match="not finite"), leaving_failures(trunk, execution, store):
        run_stage(trunk, execution, store)
    assert {record.id: record.status for record in store.records()} == {cell.id: "failed" for cell in cells}


def test_an_interrupted_stage_goes_on_and_forgets_its_checkpoint(
    tiny_config: TrialConfig, tiny_root: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, create=True)
    base = tiny_config.replace({"optim.warmup_steps": 8})
    execution = Execution(root=tiny_root, checkpoint_every=3)
    trunk, first, _ = stage_tree(grid(base, tiny_root, [("plain", "inverted")], losses=["ce+ssl", "ce+ssl+reg"]))

    def interrupt(done: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(trunk, execution, store, Progress(on_step=interrupt))
    assert store.read_checkpoint(trunk.key) is not None
    worked: list[int] = []
    for stage in (trunk, first):
        run_stage(stage, execution, store, Progress(on_step=worked.append))
    assert worked == list(range(7, base.optim.steps + 1))
    assert store.read_checkpoint(trunk.key) is None
    assert store.has_stage(trunk.key)
