"""The id of a trial: what it depends on, and that it stays what it was as the config grows."""

import csv
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from field_changes import CHANGES, WITHOUT_EFFECT, base_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from scale_ray import identity as module
from scale_ray.config import ConfigError, Introduced, TrialConfig, TuningBudget, field_paths
from scale_ray.identity import declaration_problems, identity
from scale_ray.store import Store

REPOSITORY = Path(__file__).parents[1]
INPUTS = {"source": "a" * 64, "target": "b" * 64}
WEIGHTS = {**INPUTS, "weights": "c" * 64}
TUNED = TuningBudget(
    study="s",
    validator="im",
    sampler="tpe",
    fields=("losses.threshold",),
    settings=24,
    steps=100,
    losses="ce",
    pairs=("mnist>mnistm",),
    seeds=(0,),
)

# Name -> changes, inputs, id. Another id here makes every such stored record stale, or mistakes one recipe's for
# another's: where a change alters what is trained, raise RECIPE_VERSION on purpose and pin anew.
PINNED: dict[str, tuple[dict[str, Any], Mapping[str, str], str]] = {
    "default": (
        {},
        INPUTS,
        "e5421db70c8ccd883e468861aeec3584768912815b64652580493dc138cf7c3f",
    ),
    "cdan+E": (
        {"method": "cdan", "losses.terms": "ce", "baseline.entropy_conditioning": True},
        INPUTS,
        "0153e173d5314375f8294f919fdea70da2bba08473701f858561fc8eb4c698a2",
    ),
    "weighted baseline": (
        {"method": "dann", "losses.terms": "ce", "baseline.weight": 0.5},
        INPUTS,
        "f287048c0c16c359c2b3b7878f2105bc983414004369904f7fe5552fdab61a0a",
    ),
    "frozen": (
        {"model.encoder": "frozen", "model.batch_norm": "domain"},
        INPUTS,
        "4ccc6306fc90881d02c3e799c66ebd4e1200eacbb9b1b7ff4300827e02bb6cec",
    ),
    "frozen, views and bottleneck": (
        {"model.encoder": "frozen", "model.frozen_views": 2, "model.bottleneck_dim": 64},
        INPUTS,
        "74873a8b2f4ceaafb5425511c3a82f4bf00f3b5b20ad3ecb32d00d2e836d0cec",
    ),
    "tuned": (
        {"tuning": TUNED, "losses.threshold": 0.9},
        INPUTS,
        "6a128b7f0036e1eb76ea3ec32043c92edb837c321b3a6394797a7f3b951c1a91",
    ),
    "bank": (
        {"losses.contrast": "bank"},
        INPUTS,
        "19a05223049e348368f6a62f04220fe80f97192048497aba2b3c0449e26a6f4d",
    ),
    "bank of another size": (
        {"losses.contrast": "bank", "losses.bank_size": 50},
        INPUTS,
        "2aee3bbaafe720713bbca8465188b2e59c0c1973245e0440127913591acb3b7e",
    ),
    "weighted loss term": (
        {"losses.terms": "ce+ssl+0.5*dist"},
        INPUTS,
        "af27231df397d9a964ecbfbcb37df84efb6715210670b2d4a35d66a0e31b69a6",
    ),
    "two workers": (
        {"parallel.workers": 2},
        INPUTS,
        "6412bf64c75e70faf98dd68e9f46d76acab8771cc7ca9cb97ada3a3c17670770",
    ),
    "two workers alike": (
        {"parallel.workers": 2, "model.batch_norm": "frozen"},
        INPUTS,
        "23d1e889bb1fbe3df8ff87837dcca2c2cc469c44129f12d98ea762f905c60ad8",
    ),
    "weights file": (
        {"model.weights": "/x/w.pth"},
        WEIGHTS,
        "f98291726da53c4f511d5ed46563ac3a1682c814d4d10dd67c0eeb00e300fc0c",
    ),
    "frozen, weights file": (
        {"model.encoder": "frozen", "model.weights": "/x/w.pth"},
        WEIGHTS,
        "5d3b5e4a430173a8d2c46d09bb9c767e0ae2b6d18e963867b8996a86f13686f4",
    ),
}


@pytest.fixture(params=PINNED, ids=str)
def pinned(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Mapping[str, str], str]:
    return PINNED[request.param]


def test_the_recipe_of_the_pinned_identities() -> None:
    assert module.RECIPE_VERSION == 2


def test_pinned_identity(pinned: tuple[dict[str, Any], Mapping[str, str], str]) -> None:
    changes, inputs, expected = pinned
    assert identity(TrialConfig().replace(changes), inputs) == expected


def test_identities_of_the_frozen_results_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 288 cells of benchmarks/results/frozen_pacs, which were trained with recipe 1, from their columns alone."""
    from scale_ray.data.benchmarks import BENCHMARKS, FROZEN_DEFAULTS

    base = TrialConfig().replace(
        {
            "data.benchmark": "pacs",
            **BENCHMARKS["pacs"].defaults,
            **FROZEN_DEFAULTS,
            "evaluate_every": 250,  # the default then
            "model.backbone": "mobilenet_v2",
            "model.weights": "mobilenet_v2.pth",
        }
    )
    monkeypatch.setattr(module, "RECIPE_VERSION", 1)
    table = (REPOSITORY / "benchmarks/results/frozen_pacs/records.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 288
    for row in rows:
        config = base.replace(
            {
                "data.source": row["source"],
                "data.target": row["target"],
                "method": row["method"],
                "losses.terms": row["losses"],
                "seed": int(row["seed"]),
            }
        )
        inputs = {role: row[f"{role}_digest"] for role in ("source", "target", "weights")}
        assert identity(config, inputs) == row["cell"]


def test_identities_of_a_store_of_the_first_recipe_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECIPE_VERSION", 1)
    records = list(Store(REPOSITORY / "tests/fixtures/store_0_1_0").records())
    assert len(records) == 10
    assert {record.config.method for record in records} == {"scale", "source_only", "dann", "cdan"}
    for record in records:
        assert identity(record.config, record.inputs) == record.id


# Made part by part, it is the hash of one document


def hash_of_the_whole(config: TrialConfig, inputs: Mapping[str, str]) -> str:
    values = config.model_dump(mode="json")
    if "weights" in inputs:
        values["model"]["weights"] = "file"
    if config.any_workers_alike:
        values["parallel"] |= {"workers": 1, "sync_batch_norm": False}
    defaults = TrialConfig()
    added = [path for path in field_paths() if "." in path and path not in module.FIRST_FIELDS]
    together = [
        [path for path in field_paths() if path.startswith("baseline.") and path not in added],
        ["model.encoder", "model.frozen_views", "model.bottleneck_dim"],
        ["losses.bank_size"],
    ]
    for group in [*together, *([path] for path in added)]:
        if all(config.value(path) == defaults.value(path) for path in group):
            for part, field in (path.split(".") for path in group):
                del values[part][field]
    values = {name: value for name, value in values.items() if value != {}}
    document = {"config": values, "inputs": inputs, "recipe": module.RECIPE_VERSION}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@given(st.data())
def test_identity_is_the_hash_of_the_whole_document(data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from(field_paths()), unique=True, max_size=12))
    config = TrialConfig()
    for path in paths:
        with suppress(ConfigError):  # some exclude others
            config = config.replace({path: CHANGES[path]})
    for inputs in ({}, INPUTS, WEIGHTS):
        assert identity(config, inputs) == hash_of_the_whole(config, inputs)


# A config that grows

PARTS = ["", *(name for name, field in TrialConfig.model_fields.items() if hasattr(field.annotation, "model_fields"))]
PARTS.append("tuning")


def with_field(part: str, annotation: Any, default: Any) -> type[TrialConfig]:
    """TrialConfig with one more field in a part of it; "" is TrialConfig itself."""
    added: dict[str, Any] = {"added": (annotation, default)}
    if not part:
        return create_model("TrialConfig", __base__=TrialConfig, **added)
    before: type[BaseModel] = TuningBudget if part == "tuning" else type(getattr(TrialConfig(), part))
    grown = create_model(before.__name__, __base__=before, **added)
    field = (grown | None, None) if part == "tuning" else (grown, grown())
    return create_model("TrialConfig", __base__=TrialConfig, **{part: field})  # type: ignore[call-overload]


def grown_config(part: str, changes: dict[str, Any]) -> TrialConfig:
    """A config with these changes, of a class that has one more declared field."""
    grown = with_field(part, Annotated[float, Introduced(0.5)], 0.5)
    changes = {path: value.model_dump() if isinstance(value, BaseModel) else value for path, value in changes.items()}
    return grown().replace(changes)


@pytest.mark.parametrize("part", PARTS)
def test_an_added_field_moves_no_pinned_identity(
    part: str, pinned: tuple[dict[str, Any], Mapping[str, str], str]
) -> None:
    changes, inputs, expected = pinned
    config = grown_config(part, changes)
    assert identity(config, inputs) == expected


@pytest.mark.parametrize("part", PARTS)
def test_an_added_field_enters_the_identity_where_it_differs(part: str) -> None:
    changes: dict[str, Any] = {"tuning": TUNED} if part == "tuning" else {}
    before = identity(TrialConfig().replace(changes), INPUTS)
    config = grown_config(part, changes)
    if part == "tuning":
        assert config.tuning is not None
        changed = config.replace({"tuning": {**config.tuning.model_dump(), "added": 0.7}})
    else:
        changed = config.replace({f"{part}.added".lstrip("."): 0.7})
    assert identity(config, INPUTS) == before
    assert identity(changed, INPUTS) != before


def test_every_field_is_declared() -> None:
    assert declaration_problems() == []


@pytest.mark.parametrize("part", PARTS)
def test_an_undeclared_field_fails_with_what_to_do(part: str) -> None:
    grown = with_field(part, float, 0.5)
    (problem,) = declaration_problems(grown)
    path = f"{part}.added".lstrip(".")
    assert problem.startswith(
        f"{path}: a new config field must not change the ids of stored records: declare the value"
    )
    assert "`added: Annotated[TYPE, Introduced(VALUE)] = VALUE` in scale_ray/config" in problem
    with pytest.raises(AssertionError, match=f"{path}: a new config field"):
        identity(grown(), INPUTS)


def test_a_changed_default_fails_with_what_to_do() -> None:
    losses = type(TrialConfig().losses)
    changed = create_model("LossesConfig", __base__=losses, threshold=(float, Field(0.9, ge=0, lt=1)))
    (problem,) = declaration_problems(create_model("TrialConfig", __base__=TrialConfig, losses=(changed, changed())))
    assert problem.startswith(
        "losses.threshold: its default is 0.9 and was 0.8 when the field was introduced: keep the"
    )
    assert "raise RECIPE_VERSION" in problem
    (problem,) = declaration_problems(with_field("views", Annotated[float, Introduced(0.5)], 0.6))
    assert problem.startswith("views.added: its default is 0.6 and was 0.5 when the field was introduced")


# What it depends on


@pytest.mark.parametrize("path", field_paths())
def test_every_field_is_an_axis_and_changes_the_identity(path: str) -> None:
    default, changed = base_of(path), base_of(path).replace({path: CHANGES[path]})
    assert changed.value(path) == CHANGES[path] != default.value(path)
    assert (identity(changed, INPUTS) != identity(default, INPUTS)) == (path != WITHOUT_EFFECT)
    back = changed.replace({path: default.value(path)})
    assert identity(back, INPUTS) == identity(default, INPUTS)


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, False),
        ({"model.batch_norm": "joint"}, False),
        ({"model.batch_norm": "frozen"}, True),
        ({"parallel.sync_batch_norm": True, "model.batch_norm": "joint"}, True),
    ],
    ids=str,
)
def test_the_identity_sees_workers_only_where_batch_norm_does(changes: dict[str, Any], alike: bool) -> None:
    ids = [identity(TrialConfig().replace({**changes, "parallel.workers": workers}), INPUTS) for workers in (1, 2, 4)]
    assert len(set(ids)) == (1 if alike else 3)


def test_a_worker_may_have_one_image_where_batch_norm_sees_no_parts() -> None:
    for changes in (
        {"model.batch_norm": "frozen"},
        {"model.batch_norm": "joint", "parallel.sync_batch_norm": True},
    ):
        assert TrialConfig().replace({**changes, "parallel.workers": 32}).parallel.workers == 32


def test_identity_depends_on_the_inputs_and_their_roles() -> None:
    digests = ["a" * 64, "b" * 64]
    ids = {identity(TrialConfig(), {"source": one, "target": other}) for one in digests for other in digests}
    assert len(ids) == 4
    assert identity(TrialConfig(), dict(reversed(INPUTS.items()))) == identity(TrialConfig(), INPUTS)


def test_identity_depends_on_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(TrialConfig(), INPUTS)
    monkeypatch.setattr(module, "RECIPE_VERSION", module.RECIPE_VERSION + 1)
    assert identity(TrialConfig(), INPUTS) != before


def test_a_digest_of_the_weights_stands_for_their_path() -> None:
    def named(path: str, digest: str | None) -> str:
        inputs = INPUTS if digest is None else {**INPUTS, "weights": digest}
        return identity(TrialConfig().replace({"model.weights": path}), inputs)

    assert named("/a/w.pth", "c" * 64) == named("b/other.pth", "c" * 64)
    assert named("/a/w.pth", "c" * 64) != named("/a/w.pth", "d" * 64)
    assert named("none", None) != named("imagenet", None) != named("/a/w.pth", "c" * 64)
