"""What the runs are worth together: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.comparisons import count_only, mcnemar
from experiments.comparison.configurations import Configuration
from experiments.comparison.scores import read_predictions
from experiments.results.evaluation import Interval, cross_entropy, image_cross_entropy, wilson_interval
from experiments.results.records import Predictions

MOST_MEMBERS = 50  # more than anybody would serve, and 32 MB of MNIST probabilities


@dataclass(frozen=True)
class Member:
    """A run of an ensemble.

    Attributes:
        cost_of_leaving: by how much the others' validation cross-entropy is higher than that of all, nats; None where
            it is not known.
        error: standard error of the cost over validation images.
    """

    name: str
    cost_of_leaving: float | None
    error: float


@dataclass(frozen=True)
class Ensemble:
    """Runs whose probabilities are averaged.

    Attributes:
        members: best validation accuracy first; at most 50.
        candidates: runs that could have been members.
        accuracy: on the test images, with its Wilson interval.
        cross_entropy: on the test images, nats.
        single_accuracy: of the first member alone.
        p_value: exact McNemar test of the ensemble against the first member.
    """

    members: tuple[Member, ...]
    candidates: int
    accuracy: float
    accuracy_interval: Interval
    cross_entropy: float
    single_accuracy: float
    p_value: float

    @property
    def harmful(self) -> tuple[str, ...]:
        """Members without which the others have a lower validation cross-entropy, by two standard errors or more."""
        known = ((m.name, m.cost_of_leaving, m.error) for m in self.members)
        return tuple(name for name, cost, error in known if cost is not None and cost < -2 * error)


def ensemble(configurations: Sequence[Configuration]) -> Ensemble | None:
    """All runs on the first configuration's test images together; None for fewer than two.

    Members are chosen, and judged harmful, by validation; the test images only tell what the whole is worth.
    """
    first = configurations[0].scores
    runs = [
        (f"{c.label} · seed {record.seed}" if len(c.records) > 1 else c.label, record)
        for c in configurations
        if first is not None and c.scores is not None and c.scores.test_set is first.test_set
        for record in c.records
    ]
    if len(runs) < 2:
        return None
    runs.sort(key=lambda run: -run[1].metrics.get("validation/accuracy", -np.inf))
    chosen = runs[:MOST_MEMBERS]
    predictions = [read_predictions(record) for _, record in chosen]
    costs = _costs_of_leaving(predictions)
    members = tuple(Member(name, *cost) for (name, _), cost in zip(chosen, costs, strict=True))
    return _evaluated(members, len(runs), predictions)


def _evaluated(members: tuple[Member, ...], candidates: int, predictions: list[Predictions]) -> Ensemble:
    labels = predictions[0].test_labels
    mean = np.mean([p.test_probabilities for p in predictions], axis=0)
    right = mean.argmax(axis=1) == labels
    single = predictions[0].test_probabilities.argmax(axis=1) == labels
    return Ensemble(
        members=members,
        candidates=candidates,
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), len(labels)),
        cross_entropy=cross_entropy(mean, labels),
        single_accuracy=float(single.mean()),
        p_value=mcnemar(*count_only(right, single)),
    )


def _costs_of_leaving(predictions: list[Predictions]) -> list[tuple[float | None, float]]:
    """Each one's cost and its standard error; unknown where the validation images differ."""
    labels = predictions[0].validation_labels
    if not len(labels) or not all(np.array_equal(p.validation_labels, labels) for p in predictions):
        return [(None, 0.0)] * len(predictions)
    stacked: NDArray[np.float32] = np.stack([p.validation_probabilities for p in predictions])
    total, others = stacked.sum(axis=0), len(predictions) - 1
    whole = image_cross_entropy(total / len(predictions), labels)
    costs = [image_cross_entropy((total - own) / others, labels) - whole for own in stacked]
    return [(float(cost.mean()), float(cost.std() / math.sqrt(len(cost)))) for cost in costs]
