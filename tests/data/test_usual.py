"""What the papers of the methods set, and what it yields to."""

import pytest

from scale_ray.cli.configs import config_from
from scale_ray.cli.options import TrialOptions
from scale_ray.config import TrialConfig, field_paths
from scale_ray.data.benchmarks import BENCHMARKS
from scale_ray.data.defaults import base_config, usual_settings
from scale_ray.data.usual import USUAL, USUAL_WHERE_FROZEN
from scale_ray.methods import METHODS
from scale_ray.methods.clip import ClipMethod
from scale_ray.study import Study, approaches
from scale_ray.training.resolve import check_trial

PAIRS = {"image_folder": {"data.source": "a", "data.target": "b"}}


def test_every_entry_is_one_of_a_method_and_every_path_a_field() -> None:
    entries = [USUAL, USUAL_WHERE_FROZEN, *(benchmark.usual for benchmark in BENCHMARKS.values())]
    for entry in entries:
        assert entry.keys() <= METHODS.keys()
        assert {path for fields in entry.values() for path in fields} <= set(field_paths())


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("method", METHODS)
def test_each_method_takes_its_settings_on_each_benchmark(benchmark: str, method: str) -> None:
    on_clip = issubclass(METHODS[method], ClipMethod)
    network = {"model.backbone": "clip_rn50", "model.weights": "none"} if on_clip else {}
    if method == "prototypes":  # they need a pre-trained encoder
        network = {"model.backbone": "resnet18", "model.weights": "imagenet"}
    terms = {} if method == "scale" else {"losses.terms": "ce"}
    config = base_config(benchmark, {"method": method, **terms, **network, **PAIRS.get(benchmark, {})})
    check_trial(config)


def test_the_papers_rates_where_the_benchmark_sets_none() -> None:
    def rate(benchmark: str, method: str, **changes: object) -> float:
        return base_config(benchmark, {"method": method, **changes}).optim.learning_rate

    assert [rate("pacs", name) for name in ("scale", "dann", "cdan", "mcc", "mdd")] == [0.003, 0.01, 0.01, 0.005, 0.004]
    assert rate("pacs", "mcc", **{"model.encoder": "frozen", "losses.terms": "ce"}) == 0.005
    # LeNet learns from random weights at the benchmark's rate; the adversarial papers have one of their own on digits.
    assert [rate("digits", name) for name in ("scale", "mcc", "dann", "cdan")] == [0.05, 0.05, 0.01, 0.01]


def test_a_baseline_without_adaptation_is_a_linear_probe_where_the_encoder_is_frozen() -> None:
    def head(**changes: object) -> str:
        return base_config("pacs", {"method": "source_only", "losses.terms": "ce", **changes}).model.head

    frozen = {"model.encoder": "frozen"}
    assert (head(), head(**frozen), head(**frozen, **{"model.head": "mlp"})) == ("mlp", "linear", "mlp")
    cells = Study("s", base_config("pacs", frozen), {"method": approaches("source_only", "scale")}).cells()
    assert [cell.model.head for cell in cells] == ["mlp", "mlp"]  # a study that names no usual settings has none
    usual = usual_settings(base_config("pacs", frozen))
    cells = Study("s", base_config("pacs", frozen), {"method": approaches("source_only", "scale")}, usual).cells()
    assert [cell.model.head for cell in cells] == ["linear", "mlp"]


def test_what_is_set_by_hand_stays() -> None:
    assert base_config("pacs", {"method": "dann", "optim.learning_rate": 0.003}).optim.learning_rate == 0.003
    own = base_config("pacs", {"optim.learning_rate": 0.02})
    assert "optim.learning_rate" not in usual_settings(own)["dann"]
    cells = Study("s", own, {"method": approaches("dann", "mcc")}, usual_settings(own)).cells()
    assert [cell.optim.learning_rate for cell in cells] == [0.02, 0.02]
    assert [cell.baseline.transfer_from for cell in cells] == ["warm_up", "warm_up"]


def test_a_config_that_is_written_out_has_what_it_says() -> None:
    config = TrialConfig().replace({"method": "dann", "losses.terms": "ce"})
    assert (config.optim.learning_rate, config.baseline.transfer_from) == (0.003, "start")
    (cell,) = Study("s", config, {}).cells()
    assert cell == config


def test_clip_has_an_input_of_its_own_on_any_benchmark() -> None:
    for benchmark in ("digits", "pacs", "office_home"):
        data = base_config(benchmark, {"method": "clip_zero_shot"}).data
        assert (data.image_size, data.resize, data.fit) == (224, 224, "crop")
        assert base_config(benchmark, {"method": "scale"}).data.fit == "squeeze"


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("method", ["scale", "source_only", "mcc", "dann"])
@pytest.mark.parametrize("steps", [None, 90])
def test_a_frozen_encoder_brings_from_python_what_it_brings_on_the_command_line(
    benchmark: str, method: str, steps: int | None
) -> None:
    terms = {} if method == "scale" else {"losses.terms": "ce"}
    named = {"method": method, "model.weights": "imagenet", **terms, **PAIRS.get(benchmark, {})}
    line = TrialOptions(benchmark=benchmark, weights="imagenet", frozen=True, steps=steps)
    python = base_config(benchmark, {"model.encoder": "frozen", **named}, steps=steps)
    assert python == config_from(line, named)
    assert (python.model.hidden_dim, python.optim.steps) == (256, steps or 1000)
