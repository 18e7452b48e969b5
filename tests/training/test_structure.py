"""Validators of a network's structure against plain loops, hand-computed cases and another library."""

import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from test_validators import evidence, one_hot, predictions, slow_im
from torch import Tensor

from scale_ray.training import structure
from scale_ray.training.evidence import MIX_SHARE, Common, Evidence, Mixed, mixed_pairs
from scale_ray.training.structure import REVERSE_SHRINKAGE, _there_and_back, discriminant, hopkins, non_uniformity
from scale_ray.training.validators import VALIDATORS


def blobs(classes: int, each: int, *, spread: float = 0.05, dim: int = 5, seed: int = 0) -> Tensor:
    """Points around `classes` directions, class by class."""
    numbers = torch.Generator().manual_seed(seed)
    centres = torch.eye(dim)[:classes].repeat_interleave(each, dim=0)
    return (centres + spread * torch.randn(classes * each, dim, generator=numbers)).double()


# Slow references


def slow_ami(one: list[int], other: list[int]) -> float:
    """Adjusted mutual information; the expected value of MI from the hypergeometric distribution, term by term."""
    n, rows, columns, joint = len(one), Counter(one), Counter(other), Counter(zip(one, other, strict=True))

    def term(count: int, a: int, b: int) -> float:
        return count / n * math.log(n * count / (a * b))

    found = sum(term(count, rows[i], columns[j]) for (i, j), count in joint.items())
    expected = 0.0
    for a, b in itertools.product(rows.values(), columns.values()):
        for count in range(max(1, a + b - n), min(a, b) + 1):
            chance = math.comb(b, count) * math.comb(n - b, a - count) / math.comb(n, a)
            expected += term(count, a, b) * chance
    entropies = [-sum(c / n * math.log(c / n) for c in sizes.values()) for sizes in (rows, columns)]
    return (found - expected) / (sum(entropies) / 2 - expected)


def slow_non_uniformity(rows: list[list[float]]) -> float:
    ideal, found = math.acos(-1 / (len(rows) - 1)), []
    for one, other in itertools.permutations(rows, 2):
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        found.append((math.acos(dot / (math.hypot(*one) * math.hypot(*other))) - ideal) ** 2)
    return sum(found) / len(found)


def slow_discriminant(features: np.ndarray, labels: list[int], queries: np.ndarray) -> list[int]:
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    known, asked = (features - mean) / deviation, (queries - mean) / deviation
    within, means = np.zeros((known.shape[1],) * 2), {}
    for label in sorted(set(labels)):
        own = known[[each == label for each in labels]]
        means[label] = own.mean(axis=0)
        for row in own:
            within += np.outer(row - means[label], row - means[label]) / len(known)
    inverse = np.linalg.inv(within + REVERSE_SHRINKAGE * np.eye(known.shape[1]))
    found = []
    for row in asked:
        distances = {label: (row - mu) @ inverse @ (row - mu) for label, mu in means.items()}
        found.append(min(distances, key=distances.__getitem__))
    return found


# classami


def test_classami_is_the_adjusted_mutual_information_with_clusters() -> None:
    """Three clear clusters; some images are predicted as another class. k-means finds the clusters, in any order."""
    clusters = [0] * 8 + [1] * 8 + [2] * 8
    predicted = [*clusters]
    predicted[0], predicted[9], predicted[10] = 1, 2, 0
    given_ = replace(evidence(), target=predictions(one_hot(predicted, 3), 7 * blobs(3, 8)))
    assert VALIDATORS["classami"](given_) == pytest.approx(slow_ami(predicted, clusters), rel=1e-9)
    assert 0 < VALIDATORS["classami"](given_) < 1


def test_classami_of_predictions_that_are_the_clusters_is_one_and_of_a_collapse_zero() -> None:
    features = blobs(3, 8)
    of_clusters, collapsed = (
        replace(evidence(), target=predictions(one_hot(labels, 3), features))
        for labels in ([2] * 8 + [0] * 8 + [1] * 8, [1] * 24)
    )
    assert VALIDATORS["classami"](of_clusters) == pytest.approx(1, abs=1e-12)
    assert VALIDATORS["classami"](collapsed) == 0
    alike = replace(evidence(), target=predictions(one_hot([1] * 24, 3), torch.ones(24, 5)))
    assert VALIDATORS["classami"](alike) == 0  # though one class is one cluster


def test_classami_of_predictions_at_random_is_about_zero() -> None:
    numbers = random.Random(0)
    found = []
    for _ in range(40):
        labels = [numbers.randrange(3) for _ in range(24)]
        found.append(VALIDATORS["classami"](replace(evidence(), target=predictions(one_hot(labels, 3), blobs(3, 8)))))
    assert abs(sum(found) / len(found)) < 0.05


def test_classami_clusters_directions_and_not_lengths() -> None:
    """An image whose features are a hundred times as long stays in its cluster."""
    features = blobs(3, 8)
    features[::3] *= 100
    labels = [0] * 8 + [1] * 8 + [2] * 8
    given_ = replace(evidence(), target=predictions(one_hot(labels, 3), features))
    assert VALIDATORS["classami"](given_) == pytest.approx(1, abs=1e-12)


def test_classami_clusters_well_among_many_starts() -> None:
    features = torch.nn.functional.normalize(blobs(5, 30, spread=0.25), dim=1)
    best = KMeans(5, n_init=50, random_state=1).fit(features.numpy()).labels_
    given_ = replace(evidence(), target=predictions(one_hot(best.tolist(), 5), features))
    assert VALIDATORS["classami"](given_) > 0.95


# transfer_score


def test_non_uniformity_equals_plain_loops() -> None:
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    assert non_uniformity(weights) == pytest.approx(slow_non_uniformity(weights.tolist()), rel=1e-9)


def test_non_uniformity_by_hand() -> None:
    """A simplex has none. Orthogonal rows differ from three classes' 120 degrees by 30, equal rows by 120."""
    simplex = torch.tensor([[1.0, 0.0], [-0.5, math.sqrt(3) / 2], [-0.5, -math.sqrt(3) / 2]])
    assert non_uniformity(simplex) == pytest.approx(0, abs=1e-12)
    assert non_uniformity(torch.eye(3)) == pytest.approx((math.pi / 6) ** 2, rel=1e-9)
    assert non_uniformity(torch.ones(3, 2)) == pytest.approx((2 * math.pi / 3) ** 2, rel=1e-6)
    assert non_uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(0, abs=1e-12)


def test_hopkins_of_two_points_by_hand() -> None:
    """The two are 1 apart, so w = 1; a uniform point between them is u' = 1/4 from the nearer one on average."""
    found = [hopkins(torch.tensor([[0.0], [1.0]]).double())]
    assert 0 <= found[0] <= 0.5 / 1.5
    many = torch.tensor([[0.0], [1.0]]).repeat(5000, 1).double()  # copies have a neighbour at no distance
    assert hopkins(many) == 1


def test_hopkins_tells_clusters_from_uniform_points() -> None:
    uniform = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)).double()
    assert hopkins(uniform) == pytest.approx(0.5, abs=0.05)
    assert hopkins(blobs(2, 500, spread=0.01, dim=2)) > 0.9
    lattice = torch.cartesian_prod(torch.arange(32.0), torch.arange(32.0)).double()
    assert hopkins(lattice) < 0.4


def test_hopkins_equals_plain_loops_where_its_points_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(4)).double()
    low, high = points.amin(dim=0), points.amax(dim=0)
    drawn: list[Tensor] = []
    rand = torch.rand

    def seen(*size: int, **more: object) -> Tensor:
        drawn.append(rand(*size, **more))
        return drawn[-1]

    with monkeypatch.context() as patch:
        patch.setattr(structure.torch, "rand", seen)
        found = hopkins(points)
    near = [min(math.dist(one, other) for other in points.tolist() if other != one) for one in points.tolist()]
    placed = (low + drawn[0] * (high - low)).tolist()
    far = [min(math.dist(one, other) for other in points.tolist()) for one in placed]
    assert found == pytest.approx(sum(far) / (sum(far) + sum(near)), rel=1e-6)


def test_hopkins_reads_a_fixed_part_of_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)).double()
    whole = hopkins(points)
    monkeypatch.setattr(structure, "HOPKINS_POINTS", 50)
    assert hopkins(points) == hopkins(points) != whole


def test_transfer_score_is_the_sum_of_its_parts() -> None:
    given_ = evidence(3)
    expected = (
        hopkins(given_.target.features)
        - slow_non_uniformity(given_.class_weights.tolist())
        + slow_im(given_.target.logits.tolist()) / math.log(4)
    )
    assert VALIDATORS["transfer_score"](given_) == pytest.approx(expected, rel=1e-9)
    without = replace(given_, class_weights=None)
    angle = math.acos(-1 / 3) - math.pi / 2
    expected += slow_non_uniformity(given_.class_weights.tolist()) - angle**2
    assert VALIDATORS["transfer_score"](without) == pytest.approx(expected, rel=1e-9)


# reverse


@pytest.mark.parametrize("seed", range(3))
def test_the_reverse_classifier_equals_plain_loops(seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    features, queries = (torch.randn(count, 4, generator=numbers).double() for count in (30, 20))
    labels = torch.randint(3, (30,), generator=numbers)
    found = discriminant(features, labels, queries).tolist()
    assert found == slow_discriminant(features.numpy(), labels.tolist(), queries.numpy())


def test_the_reverse_classifier_without_shrinkage_is_another_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "REVERSE_SHRINKAGE", 0.0)
    numbers = torch.Generator().manual_seed(0)
    features, queries = (torch.randn(count, 4, generator=numbers).double() for count in (60, 50))
    labels = torch.randint(3, (60,), generator=numbers)
    other = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(features.numpy(), labels.numpy())
    assert discriminant(features, labels, queries).tolist() == other.predict(queries.numpy()).tolist()


def test_reverse_by_hand() -> None:
    """Target: classes 0 and 2 at -1 and 1, right of 0 is class 2. Of five source_val images three agree."""
    target = predictions(one_hot([0, 0, 2, 2], 3), torch.tensor([[-1.1], [-0.9], [0.9], [1.1]]))
    source = predictions(torch.zeros(5, 3), torch.tensor([[-2.0], [-0.1], [0.1], [2.0], [3.0]]))
    labels = torch.tensor([0, 2, 2, 2, 1])
    given_ = replace(evidence(images=5), source_val=source, source_val_labels=labels, target=target)
    assert VALIDATORS["reverse"](given_) == pytest.approx(60, abs=1e-12)


def test_reverse_of_a_collapse_is_the_share_of_that_class() -> None:
    given_ = replace(evidence(images=8), source_val_labels=torch.tensor([1, 1, 1, 0, 2, 3, 0, 2]))
    collapsed = replace(given_, target=predictions(one_hot([1] * 11, 4), given_.target.features[:11]))
    assert VALIDATORS["reverse"](collapsed) == pytest.approx(100 * 3 / 8)


def test_reverse_sees_pseudo_labels_that_do_not_fit_the_source() -> None:
    """The domains have the same clusters; half of the target's are predicted wrong."""
    features = blobs(4, 10, dim=4)
    right, wrong = [each for each in range(4) for _ in range(10)], [0] * 10 + [1] * 10 + [3] * 10 + [2] * 10
    source = predictions(one_hot(right, 4), blobs(4, 10, dim=4, seed=1))
    found = []
    for labels in (right, wrong):
        target = predictions(one_hot(labels, 4), features)
        given_ = replace(evidence(), source_val=source, source_val_labels=torch.tensor(right), target=target)
        found.append(VALIDATORS["reverse"](given_))
    assert found == [100, 50]


# circular


def test_circular_equals_plain_loops() -> None:
    given_ = evidence(3, images=10, dim=3)
    common = given_.common
    assert common is not None
    source, target = (np.sign(each) * np.sqrt(np.abs(each)) for each in (common.source.numpy(), common.target.numpy()))
    source, target = source - source.mean(0), target - target.mean(0)
    labels, predicted = common.source_labels.numpy(), given_.target.logits.argmax(dim=1).numpy()
    residuals = np.stack([row - source[labels == label].mean(0) for row, label in zip(source, labels, strict=True)])
    covariance = residuals.T @ residuals / len(source)
    shrunk = 0.1 * covariance + 0.9 * np.trace(covariance) / 3 * np.eye(3)
    root = np.linalg.inv(np.linalg.cholesky(shrunk))  # any root of the inverse gives the same cosines

    def directions(rows: np.ndarray) -> np.ndarray:
        white = rows @ root.T
        return white / np.linalg.norm(white, axis=1, keepdims=True)

    right = 0
    for row, label in zip(directions(source), labels, strict=True):
        cosines = {}
        for each in set(predicted):
            mean = directions(target)[predicted == each].mean(0)
            cosines[each] = row @ mean / np.linalg.norm(mean)
        right += max(cosines, key=lambda each: cosines[each]) == label
    assert VALIDATORS["circular"](given_) == pytest.approx(100 * right / len(labels), abs=1e-9)


def test_circular_sees_wrong_labels_that_a_training_has_made_clusters_of() -> None:
    """The student's own features follow its labels, so `reverse` is content; in the common space they do not."""
    right, wrong = [each for each in range(4) for _ in range(10)], [0] * 10 + [1] * 10 + [3] * 10 + [2] * 10
    common = Common(blobs(4, 10, dim=4, seed=1), torch.tensor(right), blobs(4, 10, dim=4))
    found = {}
    for name, labels in (("right", right), ("wrong", wrong)):
        own = blobs(4, 10, dim=4)[torch.tensor(labels).argsort(stable=True).argsort()]
        given_ = replace(
            evidence(),
            source_val=predictions(one_hot(right, 4), blobs(4, 10, dim=4, seed=1)),
            source_val_labels=torch.tensor(right),
            target=predictions(one_hot(labels, 4), own),
            common=common,
        )
        found[name] = [VALIDATORS[each](given_) for each in ("reverse", "circular")]
    assert found == {"right": [100, 100], "wrong": [100, 50]}


def test_circular_is_reverse_where_the_first_weights_were_random() -> None:
    given_ = replace(evidence(4), common=None)
    assert VALIDATORS["circular"](given_) == VALIDATORS["reverse"](given_)


# coherence


def test_coherence_equals_plain_loops() -> None:
    given_ = evidence(5, images=12, dim=3)
    assert given_.common is not None
    predicted = given_.target.logits.argmax(dim=1).tolist()
    found, labels, directions = (each.numpy() for each in _there_and_back(given_))
    assert 100 * np.mean(found == labels) == pytest.approx(VALIDATORS["circular"](given_), abs=1e-9)
    alike = sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)
    chance = sum((found == each).mean() * (labels == each).mean() for each in range(4))
    back = (alike - chance) / (1 - chance)
    same, asked = 0, 0
    for i, row in enumerate(directions):
        others = sorted((j for j in range(len(directions)) if j != i), key=lambda j: -(row @ directions[j]))
        same, asked = same + sum(predicted[i] == predicted[j] for j in others[:5]), asked + 5
    chance = sum((predicted.count(each) / len(predicted)) ** 2 for each in range(4))
    together = (same / asked - chance) / (1 - chance)
    assert VALIDATORS["coherence"](given_) == pytest.approx(50 * (back + together), abs=1e-9)


def clustered(labels: list[int], right: list[int]) -> Evidence:
    """Predictions on four clusters of ten target images, that look as the source's four classes do."""
    common = Common(blobs(4, 10, dim=4, seed=1), torch.tensor(right), blobs(4, 10, dim=4))
    return replace(evidence(), target=predictions(one_hot(labels, 4), blobs(4, 10, dim=4)), common=common)


def test_coherence_sees_what_each_of_its_halves_is_blind_to() -> None:
    right = [each for each in range(4) for _ in range(10)]
    renamed = [{0: 1, 1: 2, 2: 3, 3: 0}[each] for each in right]
    # In every cluster eight images of its class and two of another: the means still lead back to the source.
    cut = [each if place % 10 < 8 else (each + 1) % 4 for place, each in enumerate(right)]
    found = {
        name: (VALIDATORS["circular"](given_), VALIDATORS["coherence"](given_))
        for name, given_ in (
            ("right", clustered(right, right)),
            ("renamed", clustered(renamed, right)),
            ("cut", clustered(cut, right)),
            ("collapsed", clustered([2] * 40, right)),
        )
    }
    assert found["right"] == (100, 100)
    assert found["renamed"][0] == 0
    assert found["renamed"][1] == pytest.approx(50 * (1 - 1 / 3))  # none is right, where a quarter is by chance
    assert found["cut"][0] == 100
    assert 60 < found["cut"][1] < 85
    assert found["collapsed"] == (25, 0)


def test_coherence_of_one_image_is_0() -> None:
    """It has no neighbours, and every source image gets its class."""
    given_ = evidence(6, images=12, dim=3)
    assert given_.common is not None
    one = predictions(given_.target.logits[:1], given_.target.features[:1])
    common = replace(given_.common, target=given_.common.target[:1])
    assert VALIDATORS["coherence"](replace(given_, target=one, common=common)) == 0


def test_coherence_is_of_the_networks_own_features_where_the_first_weights_were_random() -> None:
    right = [each for each in range(4) for _ in range(10)]
    given_ = replace(
        evidence(),
        source_val=predictions(one_hot(right, 4), blobs(4, 10, dim=4, seed=1)),
        source_val_labels=torch.tensor(right),
        target=predictions(one_hot(right, 4), blobs(4, 10, dim=4)),
        common=None,
    )
    assert VALIDATORS["coherence"](given_) == 100


# mixval


def test_mixval_by_hand() -> None:
    """Of three mixes across classes two are classified as the larger part, of two within a class one: 2/3 and 1/2."""
    labels = torch.tensor([[0, 1], [1, 2], [2, 0], [1, 1], [0, 0]])
    mixed = Mixed(labels, one_hot([0, 1, 0, 1, 2], 3).double())
    assert VALIDATORS["mixval"](replace(evidence(), mixed=mixed)) == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-15)


def test_mixval_of_a_collapse_is_a_half_at_most() -> None:
    """There is no mix across classes, and all within one are classified as it."""
    mixed = Mixed(torch.ones(6, 2, dtype=torch.long), one_hot([1] * 6, 3).double())
    assert VALIDATORS["mixval"](replace(evidence(), mixed=mixed)) == 0.5


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40))
@settings(deadline=None)
def test_every_image_is_mixed_within_its_class_and_with_at_most_one_of_another(labels: list[int]) -> None:
    state = torch.get_rng_state()
    pairs = mixed_pairs(torch.tensor(labels))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pairs, mixed_pairs(torch.tensor(labels)))
    sizes = Counter(labels)
    within = [(one, other) for one, other in pairs.tolist() if labels[one] == labels[other]]
    across = [(one, other) for one, other in pairs.tolist() if labels[one] != labels[other]]
    shared = sorted(place for place, label in enumerate(labels) if sizes[label] > 1)
    assert sorted(one for one, _ in within) == sorted(other for _, other in within) == shared
    assert all(one != other for one, other in within)
    assert len(dict(across)) == len(across)
    assert (len(across) > 0) == (len(sizes) > 1)


def test_the_larger_part_of_a_mix_is_the_first_image() -> None:
    assert 0.5 < MIX_SHARE < 1
