"""A target without labels: the training is that with labels, and whatever needs them is absent instead of zero."""

import shutil
from pathlib import Path

import pytest

from scale_ray.config import Catalogue, ConfigError, Execution, Place, TrialConfig
from scale_ray.data.benchmarks import DataError
from scale_ray.records import Record, score
from scale_ray.store import Store
from scale_ray.training.trial import run_trial


@pytest.fixture
def places(tiny_root: Path, tmp_path: Path) -> Catalogue:
    """The source with labels; the target's class folders become folders like any others."""
    folder = Path(shutil.copytree(tiny_root / "inverted", tmp_path / "inverted"))
    return Catalogue(
        domains={
            "plain": Place(images=str(tiny_root / "plain")),
            "inverted": Place(images=str(folder), labelled=False),
        }
    )


def run(config: TrialConfig, root: Path | Catalogue, store: Store | None = None, **more: bool) -> Record:
    return run_trial(config, Execution(root=root, device="cpu", **more), store)


@pytest.mark.parametrize("method", ["scale", "source_only", "mcc", "shot"])
def test_the_training_is_that_with_labels(
    tiny_config: TrialConfig, tiny_root: Path, places: Catalogue, method: str
) -> None:
    terms = "ce+ssl+dist+reg" if method == "scale" else "ce"
    config = tiny_config.replace({"method": method, "losses.terms": terms})
    without, known = run(config, places).result, run(config, tiny_root).result
    assert without is not None
    assert known is not None
    assert without.validators == known.validators
    assert (without.predicted, without.agreement, without.classes) == (known.predicted, known.agreement, known.classes)
    for one, other in zip(without.curve, known.curve, strict=True):
        assert (one.losses, one.kept_fraction, one.kept_balance) == (
            other.losses,
            other.kept_fraction,
            other.kept_balance,
        )
        assert (one.target_accuracy, one.teacher_accuracy, one.kept_accuracy) == (None, None, None)
    assert (without.target_accuracy, without.teacher_accuracy, without.confusion) == (None, None, [])
    assert known.target_accuracy is not None


def test_labels_make_another_cell(tiny_config: TrialConfig, tiny_root: Path, places: Catalogue) -> None:
    assert run(tiny_config, places).id != run(tiny_config, tiny_root).id


def test_pseudo_labels_are_described_by_what_needs_no_labels(tiny_config: TrialConfig, places: Catalogue) -> None:
    result = run(tiny_config, places).result
    assert result is not None
    last = result.curve[-1]
    assert last.agreement == result.agreement
    assert 0 <= result.agreement <= 100
    assert 0 < last.kept_balance <= 100
    assert sum(result.predicted) == 48


def test_predictions_and_models_are_kept_and_records_read_back(
    tiny_config: TrialConfig, places: Catalogue, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", create=True)
    record = run(tiny_config, places, store, keep_predictions=True, keep_model=True)
    assert store.read_record(record.id) == record
    found = store.read_predictions(record)
    assert found is not None
    assert len(found.labels) == 48
    assert run(tiny_config, places, store, keep_predictions=True) == record


def test_the_oracle_says_that_there_are_no_labels(tiny_config: TrialConfig, places: Catalogue) -> None:
    result = run(tiny_config, places).result
    assert result is not None
    with pytest.raises(ConfigError, match="oracle reads target labels, and this target has none: choose another"):
        score(result, "oracle")


def test_a_source_needs_labels(tiny_config: TrialConfig, places: Catalogue) -> None:
    turned = tiny_config.replace({"data.source": "inverted", "data.target": "plain"})
    with pytest.raises(DataError, match="source 'inverted' has no labels: choose a domain that has some"):
        run(turned, places)


def test_one_image_is_enough_for_a_target(tiny_config: TrialConfig, places: Catalogue, tmp_path: Path) -> None:
    kept = next((tmp_path / "inverted").rglob("*.png"))
    (tmp_path / "one").mkdir()
    shutil.copy(kept, tmp_path / "one" / "only.png")
    domains = dict(places.domains) | {"inverted": Place(images=str(tmp_path / "one"), labelled=False)}
    result = run(tiny_config, Catalogue(domains=domains)).result
    assert result is not None
    assert result.images == {"plain": 48, "inverted": 1}
