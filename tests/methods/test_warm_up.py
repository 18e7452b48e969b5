"""Which fields have no effect on the warm-up of `scale`, so that cells that differ in them share it."""

from collections.abc import Iterator
from itertools import product

import pytest
from torch import Tensor

from scale_ray.config import LossesConfig, TrialConfig
from scale_ray.identity import FIRST_FIELDS
from scale_ray.losses import LOSSES, LossTerm, StepTensors
from scale_ray.methods.scale import Scale

COMBINATIONS = ["ce", "ce+ssl", "ce+dist", "ce+reg", "ce+ssl+0.5*dist", "ce+ssl+reg", "ce+dist+reg", "ce+ssl+dist+reg"]

# Another valid value of every field that only the loss terms, their statistics or a target batch read.
OTHER_VALUES = {
    "losses.threshold": 0.9,
    "losses.temperature": 0.2,
    "losses.consistency": "mse",
    "losses.bank_size": 7,
    "losses.covariance": "full",
    "losses.statistics_window": "epoch",
    "losses.reg_mean": "image",
    "views.strong": "colour_affine",
    "views.randaugment_operations": 1,
    "views.randaugment_magnitude": 3,
    "views.flip": False,
    "optim.learning_rate": 0.5,
}


def expected_warm_up(config: TrialConfig) -> TrialConfig:
    """The rule for the four terms of the paper, written out by hand."""
    default = TrialConfig()
    ssl = config.losses.terms.get("ssl")
    changes = {"method": "scale", "losses.terms": {"ce": config.losses.terms["ce"]} | ({"ssl": ssl} if ssl else {})}
    unread = ["losses.temperature", "losses.reg_mean"]
    if config.losses.contrast != "bank":
        unread.append("losses.contrast")
    if not ssl:
        unread += ["losses.threshold", "losses.consistency"]
        if config.model.encoder == "trained":
            unread += ["views.strong", "views.randaugment_operations", "views.randaugment_magnitude"]
        if config.data.class_balance == "both":
            changes["data.class_balance"] = "source"
    return config.replace(changes | {path: default.value(path) for path in unread})


def configs(base: TrialConfig) -> Iterator[TrialConfig]:
    """Every combination of what decides on the warm-up, with each other field changed alone, and with all changed."""
    variants = [{}, *({path: value} for path, value in OTHER_VALUES.items()), OTHER_VALUES]
    decisive = product(COMBINATIONS, ["dist", "proto", "bank"], ["off", "source", "both"], ["trained", "frozen"])
    for terms, contrast, balance, encoder in decisive:
        changes = {"losses.terms": terms, "losses.contrast": contrast, "data.class_balance": balance}
        changed = base.replace(changes | {"model.encoder": encoder, "model.weights": "imagenet"})
        for variant in variants:
            yield changed.replace(variant)


def test_the_warm_up_of_the_papers_terms_is_the_one_written_out_by_hand(tiny_config: TrialConfig) -> None:
    checked = 0
    for config in configs(tiny_config):
        assert Scale.warm_up(config) == expected_warm_up(config)
        checked += 1
    assert checked == 8 * 3 * 3 * 2 * (len(OTHER_VALUES) + 2)


def test_every_setting_of_the_papers_terms_is_tried_above() -> None:
    tried = OTHER_VALUES.keys() | {"losses.terms", "losses.contrast"}
    assert {path for path in FIRST_FIELDS if path.startswith("losses.")} <= tried


def _term(*, waits: bool, reads: frozenset[str]) -> LossTerm:
    def compute(step: StepTensors, losses: LossesConfig) -> Tensor:
        raise NotImplementedError

    return LossTerm(compute, needs=frozenset({"target", "features"}), after_warmup=waits, reads=reads)


@pytest.mark.parametrize(
    ("waits", "reads", "shared"),
    [
        pytest.param(True, frozenset({"reg_mean"}), True, id="a waiting term reads it"),
        pytest.param(False, frozenset({"reg_mean"}), False, id="a term that acts from step 0 reads it"),
        pytest.param(True, frozenset(), False, id="nothing says who reads it"),
    ],
)
def test_cells_share_a_warm_up_where_they_differ_in_a_setting_of_a_waiting_term(
    tiny_config: TrialConfig, monkeypatch: pytest.MonkeyPatch, waits: bool, reads: frozenset[str], shared: bool
) -> None:
    """The made-up term takes over the field of `reg`, which it replaces."""
    monkeypatch.delitem(LOSSES, "reg")
    monkeypatch.setitem(LOSSES, "mine", _term(waits=waits, reads=reads))
    config = tiny_config.replace({"losses.terms": "ce+ssl+mine"})
    warm_ups = [Scale.warm_up(config.replace({"losses.reg_mean": value})) for value in ("batch", "image")]
    assert (warm_ups[0] == warm_ups[1]) == shared


@pytest.mark.parametrize("field", ["threshold", "covariance", "bank_size", "statistics_window"])
def test_what_is_read_from_step_0_on_stays_though_a_waiting_term_reads_it_too(
    tiny_config: TrialConfig, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setitem(LOSSES, "mine", _term(waits=True, reads=frozenset({field})))
    config = tiny_config.replace({"losses.terms": "ce+ssl+mine"})
    changed = config.replace({f"losses.{field}": OTHER_VALUES[f"losses.{field}"]})
    assert Scale.warm_up(config) != Scale.warm_up(changed)


def test_strong_views_of_the_source_are_read_in_a_warm_up_without_target(tiny_config: TrialConfig) -> None:
    weak = tiny_config.replace({"losses.terms": "ce+dist"})
    by_turns = weak.replace({"views.source": "alternating"})
    other = {"views.randaugment_magnitude": 3}
    assert Scale.warm_up(weak) == Scale.warm_up(weak.replace(other))
    assert Scale.warm_up(by_turns) != Scale.warm_up(by_turns.replace(other))
