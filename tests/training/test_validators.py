"""Validators against plain loops, hand-computed cases and another library, and what each of them is blind to."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from scale_ray.records import LAST_POINT_VALIDATORS, ORACLE, SET_VALIDATOR_NAMES, VALIDATOR_NAMES, WITHIN_ONE_METHOD
from scale_ray.training import evidence as evidence_
from scale_ray.training.evidence import Common, Evidence, Mixed, Predictions, sample_indices
from scale_ray.training.validators import (
    DEV_L2,
    SND_TEMPERATURE,
    VALIDATORS,
    controlled_risk,
    density_ratio,
    scores,
)

OF_TARGET_LOGITS = ["entropy", "im", "snd", "bnm"]
SURE = 1000.0  # a logit whose softmax is 1 to the last bit


def predictions(logits: Tensor, features: Tensor | None = None) -> Predictions:
    """Of images that are all in the sample."""
    features = torch.zeros(len(logits), 2).double() if features is None else features
    return Predictions(logits.double(), torch.arange(len(logits)), features.double())


def evidence(seed: int = 0, *, images: int = 12, classes: int = 4, dim: int = 3) -> Evidence:
    """Random predictions; the target's features are shifted against the source's."""
    numbers = torch.Generator().manual_seed(seed)

    def split(count: int, shift: float) -> Predictions:
        logits = 2 * torch.randn(count, classes, generator=numbers)
        return predictions(logits, torch.randn(count, dim, generator=numbers) + shift)

    labels = torch.randint(classes, (images,), generator=numbers)
    splits = split(2 * images, 0.0), split(images, 0.0), labels, split(images + 3, 0.7)
    weights = torch.randn(classes, dim, generator=numbers).double()
    mixed = Mixed(
        torch.randint(classes, (images, 2), generator=numbers),
        torch.randn(images, classes, generator=numbers).double(),
    )
    common = Common(
        torch.randn(2 * images, dim, generator=numbers).double(),
        torch.randint(classes, (2 * images,), generator=numbers),
        torch.randn(images + 3, dim, generator=numbers).double(),
    )
    return Evidence(*splits, class_weights=weights, mixed=mixed, common=common)


def of_target(logits: Tensor) -> Evidence:
    target = predictions(logits, torch.ones(len(logits), 3))
    return replace(evidence(classes=logits.shape[1]), target=target, common=None)


def one_hot(classes: list[int], number: int) -> Tensor:
    return SURE * torch.nn.functional.one_hot(torch.tensor(classes), number)


# Slow references


def softmax(row: list[float]) -> list[float]:
    largest = max(row)
    total = sum(math.exp(value - largest) for value in row)
    return [math.exp(value - largest) / total for value in row]


def entropy(distribution: list[float]) -> float:
    return -sum(p * math.log(p) for p in distribution if p > 0)


def slow_entropy(rows: list[list[float]]) -> float:
    return -sum(entropy(softmax(row)) for row in rows) / len(rows)


def slow_im(rows: list[list[float]]) -> float:
    mean = [sum(column) / len(rows) for column in zip(*map(softmax, rows), strict=True)]
    return entropy(mean) + slow_entropy(rows)


def slow_snd(rows: list[list[float]]) -> float:
    vectors = []
    for row in rows:
        p = softmax(row)
        length = math.sqrt(sum(value * value for value in p))
        vectors.append([value / length for value in p])
    total = 0.0
    for i, one in enumerate(vectors):
        others = [
            sum(a * b for a, b in zip(one, other, strict=True)) / SND_TEMPERATURE
            for j, other in enumerate(vectors)
            if j != i
        ]
        total += entropy(softmax(others))
    return total / len(vectors)


def slow_bnm(rows: list[list[float]]) -> float:
    """Singular values are the roots of the eigenvalues of P'P."""
    p = np.array([softmax(row) for row in rows])
    eigenvalues = np.linalg.eigvalsh(p.T @ p)
    return float(np.sqrt(np.clip(eigenvalues, 0, None)).sum() / math.sqrt(len(rows) * min(p.shape)))


REFERENCES = {"entropy": slow_entropy, "im": slow_im, "snd": slow_snd, "bnm": slow_bnm}


@pytest.mark.parametrize("name", OF_TARGET_LOGITS)
@pytest.mark.parametrize("shape", [(15, 4), (3, 5), (40, 2)])
def test_equals_plain_loops(name: str, shape: tuple[int, int]) -> None:
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    assert VALIDATORS[name](of_target(logits)) == pytest.approx(REFERENCES[name](logits.tolist()), rel=1e-7)


def test_density_ratio_is_that_of_another_librarys_logistic_regression() -> None:
    given_ = evidence(3, images=40, dim=5)
    source, target, asked = (part.features for part in (given_.source_train, given_.target, given_.source_val))
    known = torch.cat([source, target]).numpy()
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    domains = np.r_[np.zeros(len(source)), np.ones(len(target))]
    fitted = LogisticRegression(C=1 / (DEV_L2 * len(known)), tol=1e-10, max_iter=1000).fit(
        (known - mean) / deviation, domains
    )
    probabilities = fitted.predict_proba((asked.numpy() - mean) / deviation)
    expected = probabilities[:, 1] / probabilities[:, 0] * len(source) / len(target)
    assert density_ratio(source, target, asked).numpy() == pytest.approx(expected, rel=1e-3)


def test_controlled_risk_is_the_papers() -> None:
    """As its authors write it, with numpy."""
    numbers = np.random.default_rng(0)
    weights, errors = numbers.gamma(2.0, size=50), (numbers.random(50) < 0.3).astype(float)
    eta = -np.cov(weights * errors, weights)[0, 1] / np.var(weights, ddof=1)
    expected = np.mean(weights * errors) + eta * np.mean(weights) - eta
    assert controlled_risk(torch.from_numpy(weights), torch.from_numpy(errors)) == pytest.approx(expected, rel=1e-12)


def test_dev_is_minus_the_controlled_risk_of_the_source_errors() -> None:
    given_ = evidence(5, images=30)
    wrong = torch.tensor(
        [
            float(max(range(4), key=row.__getitem__) != label)
            for row, label in zip(given_.source_val.logits.tolist(), given_.source_val_labels.tolist(), strict=True)
        ]
    ).double()
    weights = density_ratio(given_.source_train.features, given_.target.features, given_.source_val.features)
    assert 0 < wrong.mean() < 1
    assert VALIDATORS["dev"](given_) == -controlled_risk(weights, wrong)


# By hand


def test_hand_computed_of_two_even_images() -> None:
    """p = (1/2, 1/2) twice: H = log 2, its marginal too; P has one singular value, sqrt(2) / sqrt(2) = 1, bound 2."""
    found = scores(of_target(torch.zeros(2, 2)))
    assert found["entropy"] == pytest.approx(-math.log(2), abs=1e-15)
    assert found["im"] == pytest.approx(0, abs=1e-15)
    assert found["snd"] == 0  # one neighbour each
    assert found["bnm"] == pytest.approx(0.5, abs=1e-15)


def test_hand_computed_of_sure_and_balanced_images() -> None:
    """Three classes, two images each. P'P = 2 I: singular values 3 sqrt(2), bound sqrt(6 x 3) = 3 sqrt(2).

    Of an image's five neighbours one has similarity 1 / 0.05 = 20, four have 0.
    """
    found = scores(of_target(one_hot([0, 1, 2, 0, 1, 2], 3)))
    assert (found["entropy"], found["bnm"]) == (0, pytest.approx(1, abs=1e-15))
    assert found["im"] == pytest.approx(math.log(3), abs=1e-15)
    near, far = math.e**20 / (math.e**20 + 4), 1 / (math.e**20 + 4)
    assert found["snd"] == pytest.approx(-near * math.log(near) - 4 * far * math.log(far), rel=1e-6)


def test_hand_computed_of_a_collapse() -> None:
    """All surely one of three classes: P'P has the eigenvalue 6 alone, bound sqrt(18); five neighbours alike."""
    found = scores(of_target(one_hot([1] * 6, 3)))
    assert (found["entropy"], found["im"]) == (0, 0)
    assert found["bnm"] == pytest.approx(math.sqrt(1 / 3), abs=1e-15)
    assert found["snd"] == pytest.approx(math.log(5), abs=1e-15)


def test_a_collapse_fools_entropy_and_snd_and_not_im_and_bnm() -> None:
    balanced, collapsed = (scores(of_target(one_hot(classes, 3))) for classes in ([0, 1, 2] * 4, [1] * 12))
    assert collapsed["entropy"] >= balanced["entropy"]
    assert collapsed["snd"] > balanced["snd"]
    assert collapsed["im"] < balanced["im"]
    assert collapsed["bnm"] < balanced["bnm"]


def test_controlled_risk_by_hand() -> None:
    """w = (1/2, 2), l = (1, 0): mean(wl) = 1/4, cov = 1/8 - 5/16, var = 17/8 - 25/16, eta = 1/3, mean(w) = 5/4."""
    weights, losses = torch.tensor([0.5, 2.0]).double(), torch.tensor([1.0, 0.0]).double()
    assert controlled_risk(weights, losses) == pytest.approx(1 / 4 + 1 / 3 * 1 / 4, abs=1e-15)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(-2, 2))
def test_controlled_risk_of_one_constant_loss_is_that_loss_but_for_equal_weights(
    values: list[float], loss: float
) -> None:
    weights = torch.tensor(values).double()
    equal = weights.std(correction=0) <= 1e-9 * weights.mean()
    expected = (weights.mean() * loss).item() if equal else loss
    assert controlled_risk(weights, torch.full_like(weights, loss)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_source_val_counts_percent() -> None:
    logits = one_hot([0, 1, 2, 3, 0], 4)
    given_ = replace(
        evidence(images=5), source_val=predictions(logits, torch.zeros(5, 3)), source_val_labels=torch.arange(5) % 4
    )
    assert VALIDATORS["source_val"](given_) == 100
    wrong = replace(given_, source_val_labels=torch.tensor([0, 1, 2, 0, 1]))
    assert VALIDATORS["source_val"](wrong) == 60


def test_dev_estimates_the_targets_error_under_covariate_shift() -> None:
    """h is N(0, 1) in the source and N(1, 1) in the target; an image is wrong where h > 1/2: 30.9 % and 69.1 %."""
    numbers = torch.Generator().manual_seed(0)
    train, held_out, target = (torch.randn(2000, 1, generator=numbers) + shift for shift in (0, 0, 1))
    wrong = (held_out[:, 0] > 0.5).long()
    given_ = Evidence(
        predictions(torch.zeros(2000, 2), train),
        predictions(one_hot([0] * 2000, 2), held_out),
        wrong,
        predictions(torch.zeros(2000, 2), target),
    )
    assert 100 - VALIDATORS["source_val"](given_) == pytest.approx(30.9, abs=3)
    assert -VALIDATORS["dev"](given_) == pytest.approx(0.691, abs=0.05)


# Conformity: every validator


@pytest.mark.parametrize("name", VALIDATORS)
def test_the_order_of_target_images_does_not_matter(name: str) -> None:
    given_ = evidence(2)
    target = given_.target
    order = torch.randperm(len(target.logits), generator=torch.Generator().manual_seed(0))
    other = replace(
        given_,
        target=Predictions(target.logits[order], target.sample, target.features[order]),
        common=replace(given_.common, target=given_.common.target[order]),
    )
    assert VALIDATORS[name](other) == pytest.approx(VALIDATORS[name](given_), rel=1e-5)


@pytest.mark.parametrize("name", VALIDATORS)
def test_the_order_of_classes_does_not_matter(name: str) -> None:
    given_ = evidence(4)
    order = torch.tensor([2, 0, 3, 1])

    def renamed(split: Predictions) -> Predictions:
        return replace(split, logits=split.logits[:, order])

    other = Evidence(
        renamed(given_.source_train),
        renamed(given_.source_val),
        order.argsort()[given_.source_val_labels],
        renamed(given_.target),
        given_.class_weights[order],
        Mixed(order.argsort()[given_.mixed.labels], given_.mixed.logits[:, order]),
        replace(given_.common, source_labels=order.argsort()[given_.common.source_labels]),
    )
    assert VALIDATORS[name](other) == pytest.approx(VALIDATORS[name](given_), rel=1e-12)


@pytest.mark.parametrize("name", VALIDATORS)
def test_the_same_evidence_gives_the_same_bits_and_is_left_as_it_was(name: str) -> None:
    given_, again = evidence(6), evidence(6)
    state = torch.get_rng_state()
    assert VALIDATORS[name](given_) == VALIDATORS[name](again)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(given_.target.logits, evidence(6).target.logits)
    assert torch.equal(given_.source_train.features, evidence(6).source_train.features)


LIMITS = {
    "source_val": (0, 100), "entropy": (-math.log(4), 0), "im": (0, math.log(4)), "bnm": (0, 1), "classami": (-1, 1),
    "transfer_score": (-(math.pi**2), 2), "reverse": (0, 100), "mixval": (0, 1),
    "circular": (0, 100),
    "coherence": (-100, 100),
}  # fmt: skip


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 6),
    dim=st.integers(1, 4),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]),
    equal_features=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_every_score_is_finite_and_within_its_limits(
    seed: int, images: int, dim: int, scale: float, equal_features: bool
) -> None:
    made = evidence(seed, images=images, dim=dim)

    def scaled(split: Predictions) -> Predictions:
        features = torch.full_like(split.features, 0.1) if equal_features else split.features
        return Predictions(scale * split.logits, split.sample, scale * features)

    given_ = Evidence(
        scaled(made.source_train), scaled(made.source_val), made.source_val_labels, scaled(made.target),
        scale * made.class_weights, made.mixed,
    )  # fmt: skip
    found = scores(given_)
    assert list(found) == list(VALIDATORS)
    assert all(type(score) is float and math.isfinite(score) for score in found.values())
    for name, (low, high) in LIMITS.items():
        assert low - 1e-9 <= found[name] <= high + 1e-9
    assert 0 <= found["snd"] <= math.log(images + 2) + 1e-9


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_single_image_of_each_split_has_a_score(name: str) -> None:
    one = predictions(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    mixed = Mixed(torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2).double())
    assert math.isfinite(VALIDATORS[name](Evidence(one, one, torch.tensor([1]), one, torch.zeros(2, 2), mixed)))


def test_an_image_far_beyond_all_others_has_a_finite_weight() -> None:
    numbers = torch.Generator().manual_seed(0)
    source, target = torch.randn(20, 1, generator=numbers).double(), 5 + torch.randn(20, 1, generator=numbers).double()
    weights = density_ratio(source, target, torch.tensor([[-1e9], [0.0], [1e9]]).double())
    assert weights.isfinite().all()
    assert weights[0] < weights[1] < weights[2]
    assert math.isfinite(controlled_risk(weights, torch.tensor([1.0, 0.0, 1.0]).double()))


def test_with_equal_features_dev_is_minus_the_source_error() -> None:
    made = evidence(8, images=10)
    alike = [
        replace(split, features=torch.full_like(split.features, 0.1))
        for split in (made.source_train, made.source_val, made.target)
    ]
    given_ = Evidence(alike[0], alike[1], made.source_val_labels, alike[2])
    assert VALIDATORS["dev"](given_) == pytest.approx(VALIDATORS["source_val"](given_) / 100 - 1, abs=1e-12)


# What they may see


def test_nothing_that_a_validator_sees_could_hold_a_target_label() -> None:
    assert {field.name: field.type for field in fields(Evidence)} == {
        "source_train": Predictions,
        "source_val": Predictions,
        "source_val_labels": Tensor,
        "target": Predictions,
        "class_weights": Tensor | None,
        "mixed": Mixed | None,
        "common": Common | None,
    }
    assert {field.name for field in fields(Common)} == {"source", "source_labels", "target"}
    assert {field.name for field in fields(Predictions)} == {"logits", "sample", "features"}
    assert {field.name for field in fields(Mixed)} == {"labels", "logits"}


def test_the_registry_has_the_names_that_records_know_and_no_oracle() -> None:
    assert tuple(VALIDATORS) == VALIDATOR_NAMES
    assert ORACLE not in VALIDATORS
    assert LAST_POINT_VALIDATORS | set(WITHIN_ONE_METHOD) <= set(VALIDATOR_NAMES)
    assert not {ORACLE, *VALIDATOR_NAMES} & set(SET_VALIDATOR_NAMES)


def test_a_point_before_the_last_has_all_scores_but_those_of_the_last() -> None:
    found = scores(replace(evidence(), mixed=None, common=None), last=False)
    assert list(found) == [name for name in VALIDATORS if name not in LAST_POINT_VALIDATORS]


def test_large_splits_are_sampled_alike_every_time() -> None:
    assert torch.equal(sample_indices(3), torch.arange(3))
    state = torch.get_rng_state()
    first, again, other = sample_indices(5000), sample_indices(5000), sample_indices(5001)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == len(first.unique()) == evidence_.SAMPLE_SIZE
    assert torch.equal(first, first.sort().values)
    assert first.double().mean() == pytest.approx(2500, abs=150)


def test_what_is_costly_reads_the_sample_alone() -> None:
    whole = evidence(9, images=20)
    chosen = torch.arange(0, 20, 2)

    def sampled(split: Predictions) -> Predictions:
        return Predictions(split.logits, chosen, split.features[chosen])

    def cut(split: Predictions) -> Predictions:
        return Predictions(split.logits[chosen], torch.arange(len(chosen)), split.features[chosen])

    given_ = replace(whole, source_val=sampled(whole.source_val), target=sampled(whole.target))
    small = Evidence(whole.source_train, cut(whole.source_val), whole.source_val_labels[chosen], cut(whole.target))
    for name in ("snd", "dev", "classami", "reverse"):
        assert VALIDATORS[name](given_) == VALIDATORS[name](small)
    assert VALIDATORS["im"](given_) == VALIDATORS["im"](whole)
