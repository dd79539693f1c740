"""Which strategy carries out a plan, and who tells of it. A new one is a file in `strategies/` and an entry here."""

from __future__ import annotations

from experiments.sweeps.jobs import Plan
from experiments.sweeps.presenter import JobPresenter, Presenter
from experiments.sweeps.race_presenter import RacePresenter
from experiments.sweeps.races import plan_race
from experiments.sweeps.search_presenter import SearchPresenter
from experiments.sweeps.searches import plan_search
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategies.halving import Halving
from experiments.sweeps.strategies.race import Race
from experiments.sweeps.strategy import Strategy
from experiments.sweeps.sweep import Sweep


def choose(plan: Plan) -> Strategy:
    """The strategy that the plan's options ask for.

    Raises:
        InputError: it cannot carry out this plan.
    """
    if plan.execution.jobs is not None:
        return plan_search(plan)
    return plan_race(plan) if plan.execution.until == "decided" else Grid()


def present(strategy: Strategy, sweep: Sweep) -> Presenter:
    """Who tells of a sweep with this strategy."""
    if isinstance(strategy, Halving):
        return SearchPresenter(sweep, strategy)
    return RacePresenter(sweep, strategy) if isinstance(strategy, Race) else JobPresenter(sweep)
