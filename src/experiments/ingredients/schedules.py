"""Schedules: the course of the learning rate as a fraction of its peak, over a run of any length.

Every schedule is a curve over the progress of the run in [0, 1), after an optional linear warm-up. Plateau schedules
also look at the validation cross-entropies so far; they keep no state, so a resumed run sees the same rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from experiments.ingredients.option import Count, Fraction, FractionBelowOne, NonNegative, Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PositiveFraction = Annotated[float, Field(gt=0, le=1)]
PositiveBelowOne = Annotated[float, Field(gt=0, lt=1)]


class ScheduleOption(Option):
    """What every schedule can be asked. One of its own gives `at`, and `scale` where it looks at the results."""

    group: ClassVar[str] = "schedule"
    name: str
    warmup_fraction: FractionBelowOne

    def factors(self, steps: int) -> NDArray[np.float32]:
        """The factor of each step, shape (steps,), in [0, 1].

        The first `round(warmup_fraction * steps)` rise linearly to the curve's start; the curve spans the rest, its
        progress at step i being i / (number of its steps).
        """
        import numpy as np  # here, so that a mistake in a config is told without it

        warmup = min(round(self.warmup_fraction * steps), steps - 1)
        curve = [self.at(step / (steps - warmup)) for step in range(steps - warmup)]
        ramp = [curve[0] * step / (warmup + 1) for step in range(1, warmup + 1)]
        return np.array(ramp + curve, np.float32)

    def scale(self, cross_entropies: Sequence[float]) -> float:
        """What multiplies the next epoch's rates, given the validation cross-entropies so far: 1 without a plateau."""
        del cross_entropies
        return 1.0

    def at(self, progress: float) -> float:
        """The factor, in [0, 1], at a progress of the curve in [0, 1).

        Raises:
            NotImplementedError: it has a `factors` of its own.
        """
        raise NotImplementedError


class Constant(ScheduleOption):
    """The peak throughout."""

    name: Literal["constant"]

    def at(self, progress: float) -> float:
        return 1.0


class Cosine(ScheduleOption):
    """Half a cosine from 1 to `final_fraction`.

    Formula: f + (1 - f) (1 + cos(pi p)) / 2. Source: Loshchilov and Hutter, SGDR, 2017.
    """

    name: Literal["cosine"]
    final_fraction: Fraction

    def at(self, progress: float) -> float:
        return self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * progress)) / 2


class OneCycle(ScheduleOption):
    """A cosine rise from `initial_fraction` to 1 at `peak_at`, then a cosine fall to `final_fraction`.

    Source: Smith and Topin, Super-Convergence, 2018, with cosine in place of straight lines.
    """

    name: Literal["one_cycle"]
    peak_at: PositiveBelowOne
    initial_fraction: Fraction
    final_fraction: Fraction

    def at(self, progress: float) -> float:
        if progress < self.peak_at:
            return self.initial_fraction + (1 - self.initial_fraction) * _half_cosine(progress / self.peak_at)
        left = (1 - progress) / (1 - self.peak_at)
        return self.final_fraction + (1 - self.final_fraction) * _half_cosine(left)


class Exponential(ScheduleOption):
    """A steady decay to `final_fraction`: final_fraction ** p."""

    name: Literal["exponential"]
    final_fraction: PositiveFraction

    def at(self, progress: float) -> float:
        return math.pow(self.final_fraction, progress)


class Step(ScheduleOption):
    """Multiplied by `factor` at each of `drops_at` (fractions of the run). Source: He et al., 2016."""

    name: Literal["step"]
    factor: PositiveBelowOne
    drops_at: Annotated[list[PositiveBelowOne], Field(min_length=1)]

    def at(self, progress: float) -> float:
        return self.factor ** sum(drop <= progress for drop in self.drops_at)


class ReduceOnPlateau(ScheduleOption):
    """Multiplied by `factor` after each `patience_epochs` epochs whose validation cross-entropy did not improve.

    An improvement is a fall by more than `min_delta` below the best so far; the rate never falls below
    `min_fraction` of its peak.
    """

    name: Literal["reduce_on_plateau"]
    factor: PositiveBelowOne
    patience_epochs: Count
    min_delta: NonNegative
    min_fraction: Fraction

    def scale(self, cross_entropies: Sequence[float]) -> float:
        """The product of the reductions so far, in [min_fraction, 1]."""
        scale, best, waited = 1.0, math.inf, 0
        for value in cross_entropies:
            improved = value < best - self.min_delta
            best, waited = (value, 0) if improved else (best, waited + 1)
            if waited == self.patience_epochs:
                scale, waited = max(scale * self.factor, self.min_fraction), 0
        return scale

    def at(self, progress: float) -> float:
        return 1.0


def _half_cosine(rise: float) -> float:
    return (1 - math.cos(math.pi * rise)) / 2


Schedule = Annotated[Constant | Cosine | OneCycle | Exponential | Step | ReduceOnPlateau, Field(discriminator="name")]
