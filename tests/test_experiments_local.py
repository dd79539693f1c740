"""Hydra's sweeper of this package: how many jobs a command asks for, known before any is made."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.errors import InputError
from hydra_plugins.experiments_local import LocalSweeper, _count, _Returns, _values


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("seed=0", 1),
        ("seed=0,1,2", 3),
        ("seed=range(5)", 5),
        ("seed=range(2,10,3)", 3),
        ("seed=range(10,0,-1)", 10),
        ("optimizer.learning_rate=range(0.1,0.35,0.1)", 3),
        ("seed=range(0,1000000000000)", 10**12),
        ("model=choice(cnn,mlp)", 2),
    ],
)
def test_values_are_counted_without_being_made(text: str, number: int) -> None:
    (override,) = OverridesParser.create().parse_overrides([text])
    assert _count(override) == number


def test_more_jobs_than_allowed_are_refused_with_their_number() -> None:
    sweeper = LocalSweeper()
    sweeper._most_jobs = 1000
    parse = OverridesParser.create().parse_overrides
    sweeper._refuse_too_many(parse(["seed=range(500)", "optimizer=sgd,adam"]))
    told = (
        r"^the sweep would have 2,000,000 jobs, more than sweep.most_jobs=1000; ask for fewer, or say that you want so "
        r"many: sweep.most_jobs=2000000$"
    )
    with pytest.raises(InputError, match=told):
        sweeper._refuse_too_many(parse(["seed=range(1000000)", "optimizer=sgd,adam"]))


@pytest.mark.parametrize("text", ["interval(0.1,1)", "tag(log,interval(0.1,1))", "{sgd: interval(0.1,1), adam: 0.1}"])
def test_interval_needs_a_number_of_jobs(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"optimizer.learning_rate={text}"])
    told = "holds any number of values; name them, use range(start,stop,step), or try some of them: sweep.jobs=40"
    with pytest.raises(InputError) as caught:
        _values(override)
    assert caught.value.mistakes == (f"optimizer.learning_rate={text}: {told}",)


@pytest.mark.parametrize(
    ("configured", "given", "is_search"),
    [(None, [], False), (40, [], True), (None, ["sweep.jobs=40"], True), (40, ["sweep.jobs=null"], False)],
)
def test_number_of_jobs_makes_a_search(configured: int | None, given: list[str], is_search: bool) -> None:
    sweeper = LocalSweeper()
    sweeper._points = configured
    assert sweeper._is_search(OverridesParser.create().parse_overrides(given)) is is_search


class Kept:
    """A launcher that keeps what it is asked to launch."""

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> None:
        del initial_job_idx
        self.jobs = jobs


def test_automatic_seeds_replace_those_of_a_question() -> None:
    sweeper, kept = LocalSweeper({"optimizer": "sgd,adam", "seed": "range(3)"}), Kept()
    sweeper._most_jobs, sweeper._parser, sweeper._launcher = 1000, OverridesParser.create(), kept
    sweeper.sweep(["training.epochs=1"])
    assert len(kept.jobs) == 6
    sweeper.sweep(["seed=auto"])
    assert kept.jobs[31] == ["optimizer=adam", "seed=1", "sweep.until=decided"]
    assert len(kept.jobs) == 60
    sweeper.sweep(["seed=auto", "sweep.until=all"])
    assert kept.jobs[0] == ["optimizer=sgd", "seed=0", "sweep.until=all"]


def test_what_a_launcher_returns_is_made_when_it_is_asked_for() -> None:
    asked: list[int] = []
    returned = _Returns(range(5000), lambda job: asked.append(job) or job)  # type: ignore
    assert len(returned) == 5000
    assert asked == []
    assert returned[7] == 7
    assert list(returned[3:5]) == [3, 4]
    assert asked == [7, 3, 4]
