"""Decisions of a search on the disk: the same whatever the order, and checked at every start; nothing here trains."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Search, SearchSetting
from experiments.errors import InputError
from experiments.sweeps.decision_log import DecisionLog, check_again
from experiments.sweeps.search_rungs import SearchRungs, halving_of
from experiments.sweeps.status import JobState
from experiments.sweeps.strategies.halving import Halving
from experiments.sweeps.strategy import Results, Seen
from test_halving import Fake, curves, row

JOBS, EPOCHS = 8, 16
CURVES = curves(12, EPOCHS)  # of more jobs than most tests have
SEARCH = Halving([EPOCHS] * JOBS, 0.25, 2)


def results_of(seen: Sequence[Seen]) -> Results:
    return Results(seen, {job: f"{job:064x}" for job in range(len(seen))})


def log_of(directory: Path, search: Halving = SEARCH) -> DecisionLog[decisions.Rung]:
    return DecisionLog(SearchRungs(search), directory)


def worked(workers: int, seed: int, breaks: dict[int, int] | None = None, search: Halving = SEARCH) -> Fake:
    fake = Fake(search, CURVES[: len(search.epochs)], breaks)
    fake.work(workers, random.Random(seed))
    return fake


def written(directory: Path, fake: Fake, search: Halving = SEARCH) -> str:
    log_of(directory, search).begin(results_of(fake.seen))
    return (directory / DECISIONS).read_text()


@pytest.fixture
def whole(tmp_path: Path) -> str:
    return written(tmp_path, worked(1, 0))


def test_every_rung_is_a_line_with_what_it_rests_on(whole: str) -> None:
    head, *rungs = (json.loads(line) for line in whole.splitlines())
    assert head["search"] == {"epochs": [EPOCHS] * JOBS, "keep": 0.25, "finalists": 2}
    assert [rung["rung"] for rung in rungs] == [1, 2, 3]
    assert [len(rung["results"]) for rung in rungs] == [8, 2, 2]
    best = sorted(range(JOBS), key=lambda job: -CURVES[job][0])
    assert rungs[0]["kept"] == best[:2]
    assert rungs[0]["results"][3] == [3, f"{3:064x}", *(pytest.approx(x) for x in _first_row(3))]


def _first_row(job: int) -> tuple[float, float]:
    accuracy = CURVES[job][0]
    return accuracy, 1 - accuracy


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_order_and_workers_change_no_byte(tmp_path: Path, whole: str, workers: int, seed: int) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert written(other, worked(workers, seed)) == whole


def test_stopped_after_every_message_the_decisions_are_the_same(tmp_path: Path, whole: str) -> None:
    fake, other = Fake(SEARCH, CURVES[:JOBS]), tmp_path / "other"
    other.mkdir()
    for most in range(1, 200):
        log_of(other).begin(results_of(fake.seen))
        fake.work(2, random.Random(most), most)
        fake.stop()
    log_of(other).begin(results_of(fake.seen))
    assert (other / DECISIONS).read_text() == whole


def test_changed_result_is_named(tmp_path: Path, whole: str) -> None:
    fake = worked(1, 0)
    fake.seen[3] = fake.seen[3]._replace(rows=(row(1, 0.5), *fake.seen[3].rows[1:]))
    with pytest.raises(InputError, match=r"the decision at rung 1 is not what it was: job 3: .* then, 0.5, 0.5 now"):
        check_again(tmp_path, results_of(fake.seen))


def test_more_jobs_begin_another_search_and_fewer_are_no_mistake(tmp_path: Path, whole: str) -> None:
    larger = Halving([EPOCHS] * 12, 0.25, 2)
    grown = written(tmp_path, worked(2, 5, search=larger), larger)
    assert grown.startswith(whole)
    _, (first, second) = decisions.read(tmp_path / DECISIONS)
    assert isinstance(first, Search)
    assert isinstance(second, Search)
    assert len(second.setting.epochs) == 12
    fewer = written(tmp_path, worked(1, 0))
    assert fewer.startswith(grown)
    assert len(fewer.splitlines()) == len(grown.splitlines()) + 4


def test_what_rests_on_a_failure_does_not_count_when_it_is_tried_again(tmp_path: Path) -> None:
    broken = worked(1, 0, {2: 1})
    assert '"failed": [2]' in written(tmp_path, broken)
    broken.breaks.clear()
    broken.seen[2] = Seen(JobState.WAITING)
    log_of(tmp_path).begin(results_of(broken.seen))
    _, (known,) = decisions.read(tmp_path / DECISIONS)
    assert known.rounds == []
    broken.work(1, random.Random(0))
    log_of(tmp_path).begin(results_of(broken.seen))
    _, (known,) = decisions.read(tmp_path / DECISIONS)
    assert [len(made.results) for made in known.rounds] == [8, 2, 2]


@pytest.mark.parametrize("values", [{"epochs": [0], "keep": 0.5, "finalists": 2}, {"epochs": "all"}, [], 3])
def test_settings_that_no_search_has_are_refused(tmp_path: Path, values: object) -> None:
    line = {"format": 1, "search": values}
    digest = decisions._digest("", line)
    (tmp_path / DECISIONS).write_text(json.dumps(line | {"sha256": digest}) + "\n")
    with pytest.raises(InputError, match="line 1 is no decision of a race or search"):
        decisions.read(tmp_path / DECISIONS)


def test_setting_describes_its_strategy() -> None:
    assert halving_of(SearchSetting(epochs=(8, 8, 8), keep=0.5, finalists=2)) == Halving((8, 8, 8), 0.5, 2)
