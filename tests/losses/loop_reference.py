"""Slow reference implementations of the losses: plain Python numbers, one query and one class at a time.

Definitions: docs/method.md, section 3.
"""

import math
from collections.abc import Sequence

Vector = Sequence[float]
Matrix = Sequence[Sequence[float]]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def spread(query: Vector, covariance: Vector | Matrix) -> float:
    """q' S q of a diagonal or of a full S."""
    total = 0.0
    for i, row in enumerate(covariance):
        if isinstance(row, Sequence):
            total += sum(query[i] * value * query[j] for j, value in enumerate(row))
        else:
            total += query[i] * row * query[i]
    return total


def log_sum_exp(values: Vector) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def distribution_contrast(
    features: Matrix,
    labels: Sequence[int],
    mean: Matrix,
    covariance: Sequence[Vector | Matrix],
    tau: float,
    seen: Sequence[bool],
) -> float:
    losses = []
    for query, label in zip(features, labels, strict=True):
        if label < 0 or not seen[label]:
            continue
        scores = [
            dot(query, mean[k]) / tau + spread(query, covariance[k]) / (2 * tau * tau)
            for k in range(len(mean))
            if seen[k]
        ]
        losses.append(log_sum_exp(scores) - dot(query, mean[label]) / tau)
    return sum(losses) / len(losses) if losses else 0.0


def prototype_uniformity(mean_features: Matrix, mean: Matrix, tau: float, seen: Sequence[bool]) -> float:
    losses = []
    for query in mean_features:
        scores = [dot(query, mean[k]) / tau for k in range(len(mean)) if seen[k]]
        losses.append(sum(log_sum_exp(scores) - score for score in scores) / len(scores) if scores else 0.0)
    return sum(losses) / len(losses)


def self_training(logits: Matrix, labels: Sequence[int], confidence: Vector, threshold: float) -> float:
    total = 0.0
    for row, label, sure in zip(logits, labels, confidence, strict=True):
        if sure > threshold:
            total += log_sum_exp(row) - row[label]
    return total / len(logits)


def consistency(logits: Matrix, probabilities: Matrix, confidence: Vector, threshold: float) -> float:
    total = 0.0
    for row, teacher, sure in zip(logits, probabilities, confidence, strict=True):
        if sure > threshold:
            total += sum((math.exp(x - log_sum_exp(row)) - p) ** 2 for x, p in zip(row, teacher, strict=True))
    return total / len(logits)


def multi_kernel_mmd(source: Matrix, target: Matrix, multiples: Vector) -> float:
    def squared(one: Vector, other: Vector) -> float:
        return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

    rows = [*source, *target]
    scale = sum(squared(one, other) for one in rows for other in rows) / len(rows) ** 2

    def kernel(one: Vector, other: Vector) -> float:
        return sum(math.exp(-squared(one, other) / (2 * multiple * scale)) for multiple in multiples)

    def within(sample: Matrix) -> float:
        pairs = [kernel(one, other) for i, one in enumerate(sample) for j, other in enumerate(sample) if i != j]
        return sum(pairs) / len(pairs)

    between = [kernel(one, other) for one in source for other in target]
    return within(source) + within(target) - 2 * sum(between) / len(between)


def class_confusion(logits: Matrix, temperature: float) -> float:
    predictions = []
    for row in logits:
        scaled = [value / temperature for value in row]
        predictions.append([math.exp(value - log_sum_exp(scaled)) for value in scaled])
    certainty = [1 + math.exp(sum(p * math.log(p) for p in row if p > 0)) for row in predictions]
    weights = [len(logits) * value / sum(certainty) for value in certainty]
    classes = range(len(logits[0]))
    total = 0.0
    for j in classes:
        row = [sum(w * p[j] * p[k] for w, p in zip(weights, predictions, strict=True)) for k in classes]
        total += sum(value for k, value in enumerate(row) if k != j) / sum(row)
    return total / len(classes)


def bank_contrast(features: Matrix, labels: Sequence[int], bank: Sequence[Matrix], tau: float) -> float:
    """`bank`: of every class, only the features that are held."""
    losses = []
    for query, label in zip(features, labels, strict=True):
        if label < 0 or not bank[label]:
            continue
        negatives = sum(
            sum(math.exp(dot(query, kept) / tau) for kept in members) / len(members)
            for k, members in enumerate(bank)
            if k != label and members
        )
        positives = [math.exp(dot(query, kept) / tau) for kept in bank[label]]
        losses.append(-sum(math.log(p / (p + negatives)) for p in positives) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


def attraction(probabilities: Matrix, neighbours: Sequence[Matrix]) -> float:
    total = sum(dot(row, near) for row, members in zip(probabilities, neighbours, strict=True) for near in members)
    return -total / len(probabilities)


def dispersion(probabilities: Matrix) -> float:
    pairs = [dot(one, other) for i, one in enumerate(probabilities) for j, other in enumerate(probabilities) if i != j]
    return sum(pairs) / len(probabilities)
