"""Errors image by image: which images two configurations disagree on, and which most runs miss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.comparison.configurations import Configuration
from experiments.comparison.scores import ImageSet, Scores, together


@dataclass(frozen=True)
class Mistake:
    """A test image that somebody gets wrong.

    Attributes:
        index: its place in the test set.
        digest: BLAKE2b-64 of its pixels, 16 hex digits: the image's name wherever it lies;
            "not known" where an older run has none.
        label: its class by the data set.
        answer: the wrong class that is predicted most often.
        votes: how many of the runs miss it.
        runs: how many runs were asked.
    """

    index: int
    digest: str
    label: int
    answer: int
    votes: int
    runs: int


@dataclass(frozen=True)
class Disagreement:
    """Test images by who gets them wrong, each list with the most confident errors first."""

    fixed: tuple[Mistake, ...]
    broken: tuple[Mistake, ...]
    both: tuple[Mistake, ...]


def disagreement(better: Configuration, worse: Configuration) -> Disagreement | None:
    """What `better` fixes of `worse`, what it breaks, what both miss, by the majority of each one's runs.

    None where they were not tested on the same images.
    """
    a, b = better.scores, worse.scores
    if a is None or b is None or a.test_set is not b.test_set:
        return None
    missed_by_a, missed_by_b = missed(a), missed(b)
    return Disagreement(
        fixed=_listed(b, missed_by_b & ~missed_by_a),
        broken=_listed(a, missed_by_a & ~missed_by_b),
        both=_listed(together([a, b]), missed_by_a & missed_by_b),
    )


def most_missed(configurations: Iterable[Configuration], test_set: ImageSet) -> tuple[Mistake, ...]:
    """Images that more than half of all runs on them miss, the most votes first, then the largest loss."""
    scores = [c.scores for c in configurations if c.scores is not None and c.scores.test_set is test_set]
    whole = together(scores)
    return tuple(sorted(_listed(whole, missed(whole)), key=lambda mistake: -mistake.votes))


def missed(scores: Scores) -> NDArray[np.bool_]:
    """(n,) whether more than half of the runs have an image wrong."""
    return np.asarray(2 * np.count_nonzero(scores.right, axis=0) < len(scores.right))


def _listed(scores: Scores, which: NDArray[np.bool_]) -> tuple[Mistake, ...]:
    indices = np.flatnonzero(which)
    order = np.argsort(-scores.losses[:, indices].mean(axis=0), kind="stable")
    return tuple(_mistake(scores, int(index)) for index in indices[order])


def _mistake(scores: Scores, index: int) -> Mistake:
    digests = scores.test_set.image_digests
    wrong = scores.predicted[~scores.right[:, index], index]
    return Mistake(
        index=index,
        digest=f"{int(digests[index]):016x}" if len(digests) else "not known",
        label=int(scores.test_set.labels[index]),
        answer=Counter(wrong.tolist()).most_common(1)[0][0],
        votes=len(wrong),
        runs=len(scores.right),
    )
