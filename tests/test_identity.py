"""The id of a trial: what it depends on, and that it stays what it was as the config grows."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from field_changes import CHANGES, WITHOUT_EFFECT, base_of
from pydantic import BaseModel, Field, create_model

from scale_ray import identity as module
from scale_ray.config import Introduced, TrialConfig, TuningBudget, field_paths
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
        "53b46865c48669dc13ae1de91bafb8ce8ba9a3de52eb27b0012759e7e7ad542b",
    ),
    "cdan+E": (
        {"method": "cdan", "losses.terms": "ce", "baseline.entropy_conditioning": True},
        INPUTS,
        "af3e0468fa04c3737beb155b5a57db14c18584a6fe7ee57d3ff5c2ac408abd43",
    ),
    "weighted baseline": (
        {"method": "dann", "losses.terms": "ce", "baseline.weight": 0.5},
        INPUTS,
        "4689b2e3ef3aa497c3991100f395cbd274f69938ab500ec0599ad022eccfc909",
    ),
    "frozen": (
        {"model.encoder": "frozen", "model.batch_norm": "domain"},
        INPUTS,
        "8ce0c6bbee0de43e1f8dcd783289ba763e55d07da11b36990ed81755ba64934a",
    ),
    "frozen, views and bottleneck": (
        {"model.encoder": "frozen", "model.frozen_views": 2, "model.bottleneck_dim": 64},
        INPUTS,
        "23527c5d9678946639e2e8ea05142a91fb85230f2120d08cad8f5bba5d97e55b",
    ),
    "tuned": (
        {"tuning": TUNED, "losses.threshold": 0.9},
        INPUTS,
        "01e120508b06aec1f71bc2110c7813638640e9402ed80eb867a1ec3f18a035cf",
    ),
    "bank": (
        {"losses.contrast": "bank"},
        INPUTS,
        "93764e6a60e5a6a89f7052528a2ec184614292eb7aa1c2bc0ba5eedf0d07bfeb",
    ),
    "bank of another size": (
        {"losses.contrast": "bank", "losses.bank_size": 50},
        INPUTS,
        "a00812ab3882e29f85ad7a51899497f44e1679c4cbab0081eab907a8fd24e3f8",
    ),
    "weighted loss term": (
        {"losses.terms": "ce+ssl+0.5*dist"},
        INPUTS,
        "18e0ecb0ed31a366d48d8e7d8289a9b1c593de2d5a646773527df47a0b534529",
    ),
    "two workers": (
        {"parallel.workers": 2},
        INPUTS,
        "360303314437d661796cd7081bdb4c92ce3307e77495875b22733385779480c8",
    ),
    "two workers alike": (
        {"parallel.workers": 2, "model.batch_norm": "frozen"},
        INPUTS,
        "4037551ee1305d87a6196388cece9424857125d7a09b827c57dc2c50c971c429",
    ),
    "weights file": (
        {"model.weights": "/x/w.pth"},
        WEIGHTS,
        "da8471d0a0e8470ba4b2c94f29f4355d6a6cf7178c6ae94ad2cf7d56b332ce3e",
    ),
    "frozen, weights file": (
        {"model.encoder": "frozen", "model.weights": "/x/w.pth"},
        WEIGHTS,
        "ec7cae24c38d0e2c1b8acbcec38060b536ae8a862fad422d51ec42cfc5b372af",
    ),
}


@pytest.fixture(params=PINNED, ids=str)
def pinned(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Mapping[str, str], str]:
    return PINNED[request.param]


def test_the_recipe_of_the_pinned_identities() -> None:
    assert module.RECIPE_VERSION == 1


def test_pinned_identity(pinned: tuple[dict[str, Any], Mapping[str, str], str]) -> None:
    changes, inputs, expected = pinned
    assert identity(TrialConfig().replace(changes), inputs) == expected


def test_identities_of_the_frozen_results_are_still_found() -> None:
    """All 288 cells of benchmarks/results/frozen_pacs, from their columns alone."""
    from scale_ray.data.benchmarks import BENCHMARKS, FROZEN_DEFAULTS

    base = TrialConfig().replace(
        {
            "data.benchmark": "pacs",
            **BENCHMARKS["pacs"].defaults,
            **FROZEN_DEFAULTS,
            "model.backbone": "mobilenet_v2",
            "model.weights": "mobilenet_v2.pth",
        }
    )
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


def test_identities_of_a_store_of_the_first_release_are_still_found() -> None:
    records = list(Store(REPOSITORY / "tests/fixtures/store_0_1_0").records())
    assert len(records) == 10
    assert {record.config.method for record in records} == {"scale", "source_only", "dann", "cdan"}
    for record in records:
        assert identity(record.config, record.inputs) == record.id


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
    assert "`added: Annotated[TYPE, Introduced(VALUE)] = VALUE` in config.py" in problem
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
        ({"parallel.sync_batch_norm": True}, True),
    ],
    ids=str,
)
def test_the_identity_sees_workers_only_where_batch_norm_does(changes: dict[str, Any], alike: bool) -> None:
    ids = [identity(TrialConfig().replace({**changes, "parallel.workers": workers}), INPUTS) for workers in (1, 2, 4)]
    assert len(set(ids)) == (1 if alike else 3)


def test_a_worker_may_have_one_image_where_batch_norm_sees_no_parts() -> None:
    for changes in ({"model.batch_norm": "frozen"}, {"parallel.sync_batch_norm": True}):
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
