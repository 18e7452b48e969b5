"""A user's own entries: what their source digest sees, and that they train like any other."""

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from scale_ray import LOSSES, METHODS, STRONG_VIEWS, LossTerm, training_function
from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.methods import Method
from scale_ray.methods.function import TrainingData
from scale_ray.methods.mcc import Mcc
from scale_ray.methods.scale import Scale
from scale_ray.methods.source_only import SourceOnly
from scale_ray.training.entries import Reached, code_digests, forget_code, own_entries, read_by, source_digest
from scale_ray.training.features import features_key
from scale_ray.training.resolve import resolve
from scale_ray.training.stages import alone, stage_tree
from scale_ray.training.trial import run_trial

HELPERS = """
FACTOR = 2.0
OTHER = 1

def soften(logits):
    return logits / FACTOR

def unused():
    return OTHER
"""
MINE = """
from helpers_of_mine import soften
from scale_ray.methods.mcc import Mcc

UNUSED = 1
LIMIT = 3

class Mine(Mcc):
    paper = "mine"

    def transfer(self, step, source, target):
        # a remark
        return soften(target.logits).mean() * LIMIT

def make(factor):
    class Made(Mcc):
        paper = "made"

        def transfer(self, step, source, target):
            return target.logits.mean() * factor

    return Made
"""

Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import the user's two files with texts replaced in them."""
    monkeypatch.syspath_prepend(tmp_path)
    names = ("mine_of_a_user", "helpers_of_mine")

    def load(*replaced: tuple[str, str]) -> ModuleType:
        for name, text in zip(names, (MINE, HELPERS), strict=True):
            for old, new in replaced:
                text = text.replace(old, new)
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return importlib.import_module(names[0])
        finally:
            sys.dont_write_bytecode = before

    yield load
    for name in names:
        sys.modules.pop(name, None)


def digest(module: ModuleType) -> str:
    return source_digest("method 'mine'", module.Mine)


@pytest.mark.parametrize(
    "replaced",
    [
        ("logits / FACTOR", "logits * FACTOR"),  # in a function of another file
        ("FACTOR = 2.0", "FACTOR = 3.0"),  # in a constant that this function reads
        ("LIMIT = 3", "LIMIT = 4"),
        (".mean()", ".sum()"),
        ('paper = "mine"', 'paper = "mine"\n    extra = 5'),
    ],
    ids=lambda pair: pair[0],
)
def test_what_an_entry_reaches_changes_its_digest(load: Load, replaced: tuple[str, str]) -> None:
    assert digest(load()) != digest(load(replaced))


@pytest.mark.parametrize(
    "replaced",
    [
        ("UNUSED = 1", "UNUSED = 2"),
        ("return OTHER", "return 2 * OTHER"),
        ("OTHER = 1", "OTHER = 7"),
        ("        # a remark\n", "\n        # another\n"),
    ],
    ids=lambda pair: pair[0],
)
def test_what_an_entry_does_not_reach_leaves_its_digest(load: Load, replaced: tuple[str, str]) -> None:
    assert digest(load()) == digest(load(replaced))


def test_values_of_a_closure_are_part_of_the_digest(load: Load) -> None:
    make = load().make
    one, two, again = (source_digest("method 'made'", make(factor)) for factor in (1.0, 2.0, 1.0))
    assert one == again != two


FORMS = """
from functools import partial
from helpers_of_mine import *

try:
    import helpers_of_mine as guarded
except ImportError:
    guarded = None

TABLE = {"a": soften, "b": [1, 2]}
study = 1


def by_partial(depth=2):
    return partial(body, depth=depth)


def body(logits, depth):
    study = soften(logits)  # a local name, which no top-level statement of that name concerns
    return study * depth


def closes_over(function):
    return lambda logits: function(logits)


def imports_inside(logits):
    from helpers_of_mine import soften

    return soften(logits)


class Holds:
    table = TABLE


by_lambda = lambda logits: soften(logits)


def through_module(logits):
    return guarded.soften(logits)


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, logits):
        return soften(logits) * self.factor
"""


@pytest.fixture
def forms(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """The user's file in other forms of Python."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two forms of one size within a second have the same

    def forms(*replaced: tuple[str, str]) -> ModuleType:
        load(*replaced)
        text = FORMS
        for old, new in replaced:
            text = text.replace(old, new)
        (tmp_path / "forms_of_a_user.py").write_text(text)
        sys.modules.pop("forms_of_a_user", None)
        importlib.invalidate_caches()
        forget_code()
        return importlib.import_module("forms_of_a_user")

    return forms


ENTRIES: dict[str, Callable[[ModuleType], object]] = {
    "partial": lambda user: user.by_partial(),
    "closure over a function": lambda user: user.closes_over(user.soften),
    "import inside": lambda user: user.imports_inside,
    "container in a class": lambda user: user.Holds,
    "lambda": lambda user: user.by_lambda,
    "through a module": lambda user: user.through_module,
    "callable object": lambda user: user.Callable(2),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_form_of_code_is_part_of_the_digest(
    forms: Callable[..., ModuleType], entry: Callable[[ModuleType], object]
) -> None:
    before = source_digest("mine", entry(forms()))
    assert source_digest("mine", entry(forms())) == before  # nothing in it depends on the process
    assert source_digest("mine", entry(forms(("study = 1", "study = 2")))) == before
    assert source_digest("mine", entry(forms(("logits / FACTOR", "logits * FACTOR")))) != before


def test_values_are_part_of_the_digest(forms: Callable[..., ModuleType]) -> None:
    user = forms()
    assert source_digest("mine", user.by_partial(2)) != source_digest("mine", user.by_partial(3))
    assert source_digest("mine", user.Callable(2)) != source_digest("mine", user.Callable(3))
    assert source_digest("mine", user.closes_over(user.soften)) != source_digest("mine", user.closes_over(abs))
    before = source_digest("mine", user.Holds)
    assert source_digest("mine", forms(('"b": [1, 2]', '"b": [1, 3]')).Holds) != before


def test_an_entry_of_the_packages_own_objects_is_carried_and_named(tiny_config: TrialConfig) -> None:
    METHODS["alias"] = Mcc
    assert own_entries() == {("method", "alias"): Mcc}
    config = tiny_config.replace({"method": "alias", "losses.terms": "ce"})
    assert code_digests(config).keys() == {"method alias"}


def test_features_of_an_own_view_are_its_own(frozen_config: TrialConfig, tiny_root: Path) -> None:
    keys = []
    for factor in (1.0, 2.0):
        STRONG_VIEWS["dimmed"] = dimmed_by(factor)
        forget_code()
        stage = alone(resolve(frozen_config.replace({"views.strong": "dimmed"}), tiny_root))
        keys.append(features_key(stage, "plain"))
    assert keys[0] != keys[1]


def dimmed_by(factor: float) -> Callable[..., torch.Tensor]:
    def dimmed(images: torch.Tensor, *_: object) -> torch.Tensor:
        return images / factor

    return dimmed


@pytest.mark.parametrize("base", [Scale, SourceOnly])
def test_a_subclass_shares_nothing_that_its_base_promises(base: type[Method], tiny_config: TrialConfig) -> None:
    mine = type("Mine", (base,), {"paper": "mine"})
    assert mine.reads_target(tiny_config)
    assert mine.warm_up(tiny_config) is None
    assert base.warm_up(tiny_config) is not None


def test_entries_of_the_package_have_no_digest(tiny_config: TrialConfig) -> None:
    assert code_digests(tiny_config) == {}
    assert own_entries() == {}


def test_an_entry_without_a_file_is_refused(tiny_config: TrialConfig) -> None:
    typed = ModuleType("__main__")
    METHODS["typed"] = type("Typed", (Mcc,), {"paper": "typed", "__module__": "typed_in"})
    sys.modules["typed_in"] = typed
    try:
        with pytest.raises(ConfigError, match="method 'typed': the source of 'Typed' cannot be read"):
            code_digests(tiny_config.replace({"method": "typed", "losses.terms": "ce"}))
    finally:
        del sys.modules["typed_in"]


def test_the_digest_is_an_input_of_cells_that_use_the_entry(
    load: Load, tiny_config: TrialConfig, tiny_root: Path
) -> None:
    METHODS["mine"] = load().Mine
    config = tiny_config.replace({"method": "mine", "losses.terms": "ce"})
    cell = resolve(config, tiny_root)
    assert cell.inputs.keys() == {"source", "target", "method mine"}
    assert read_by(tiny_config, cell.inputs).keys() == {"source", "target"}
    assert resolve(tiny_config, tiny_root).inputs.keys() == {"source", "target"}
    METHODS["mine"] = load(("LIMIT = 3", "LIMIT = 4")).Mine
    assert resolve(config, tiny_root).id != cell.id
    reached = Reached("mine")
    reached.add(own_entries())
    assert {module.__name__ for module in reached.modules} == {"mine_of_a_user", "helpers_of_mine"}


# Entries of this file


def pull(step: object, losses: object) -> torch.Tensor:
    return step.target_logits.float().square().mean()  # type: ignore[attr-defined]


class NearestMean(nn.Module):
    """Logits are minus the distances to the classes' means."""

    def __init__(self, means: torch.Tensor):
        super().__init__()
        self.register_buffer("means", means)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(images.flatten(1), self.means)


def nearest_mean(data: TrainingData) -> nn.Module:
    images, labels = data.source_inputs()
    assert len(images) == len(labels) < 48  # without what is held out
    assert len(data.target_inputs()) == 48
    means = [images.flatten(1)[labels == label].mean(dim=0) for label in range(len(data.classes))]
    return NearestMean(torch.stack(means))


def test_a_loss_term_of_ones_own_trains(tiny_config: TrialConfig, tiny_root: Path) -> None:
    LOSSES["pull"] = LossTerm(pull, needs=frozenset({"target"}), after_warmup=True)
    config = tiny_config.replace({"losses.terms": "ce+0.1*pull"})
    record = run_trial(config, Execution(root=tiny_root, device="cpu"), None)
    assert record.result is not None
    assert record.result.curve[-1].losses.keys() == {"ce", "pull"}
    assert record.inputs.keys() == {"source", "target", "loss term pull"}
    # A term that waits is no part of the warm-up: source_only still shares it.
    cells = [resolve(each, tiny_root) for each in (config, tiny_config.replace({"losses.terms": "ce+dist"}))]
    (trunk,) = [stage for stage in stage_tree(cells) if not stage.ends]
    assert {cell.id for cell in trunk.waiting} == {cell.id for cell in cells}


def test_a_training_function_of_ones_own_is_evaluated_like_a_method(
    tiny_config: TrialConfig, frozen_config: TrialConfig, tiny_root: Path
) -> None:
    METHODS["nearest"] = training_function(nearest_mean)
    for config in (tiny_config, frozen_config):
        config = config.replace({"method": "nearest", "losses.terms": "ce"})
        record = run_trial(config, Execution(root=tiny_root, device="cpu"), None)
        again = run_trial(config, Execution(root=tiny_root, device="cpu"), None)
        assert record.result is not None
        assert record.result == again.result
        assert record.result.steps == 0
        assert record.result.source_val_accuracy > 60  # chance is 33
        assert record.inputs.keys() >= {"method nearest"}
