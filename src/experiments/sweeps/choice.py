"""Which strategy carries out a plan, and who tells of it. A new one is a file in `strategies/` and an entry here."""

from __future__ import annotations

from experiments.sweeps.jobs import Plan
from experiments.sweeps.presenter import JobPresenter, Presenter
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategy import Strategy
from experiments.sweeps.sweep import Sweep

# What a race computes with is imported only where there is one.


def choose(plan: Plan) -> Strategy:
    """The strategy that the plan's options ask for.

    Raises:
        InputError: it cannot carry out this plan.
    """
    if plan.execution.until == "decided":
        from experiments.sweeps.races import plan_race

        return plan_race(plan)
    return Grid()


def present(strategy: Strategy, sweep: Sweep) -> Presenter:
    """Who tells of a sweep with this strategy."""
    if isinstance(strategy, Grid):
        return JobPresenter(sweep)
    from experiments.sweeps.races import RacePresenter
    from experiments.sweeps.strategies.race import Race

    if isinstance(strategy, Race):
        return RacePresenter(sweep, strategy)
    raise TypeError(f"{type(strategy).__name__}: nobody tells of it")
