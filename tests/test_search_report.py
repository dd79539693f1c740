"""What the report shows of a search: the best so far over epochs, and the score by the value of each option."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.comparison.search_chart import course_chart, legend, slices
from experiments.comparison.searches import Best, SearchResult, Trial, _ranges, find
from synthetic_runs import rows_of, write_run

RANGES = {
    "optimizer": "choice(sgd,adam)",
    "learning_rate": "tag(log,interval(0.0001,0.1))",
    "beta_1": "interval(0.8,0.9)",
}


def trial(job: int, *accuracies: float, stands: bool = True, **settings: float | str) -> Trial:
    return Trial(job, settings, accuracies, stands)


@pytest.fixture
def search() -> SearchResult:
    trials = (
        trial(0, 0.5, optimizer="sgd", learning_rate=0.001),
        trial(1, 0.7, 0.8, 0.8, 0.9, optimizer="adam", learning_rate=0.01, beta_1=0.85),
        trial(2, 0.6, 0.85, optimizer="adam", learning_rate=0.05, beta_1=0.81),
        trial(3, 0.1, optimizer="sgd", learning_rate=0.0001),
    )
    return SearchResult(RANGES, trials)


def test_course_goes_stage_by_stage_whatever_ran_first(search: SearchResult) -> None:
    assert search.stages == (1, 2, 4)
    assert search.epochs == 8
    assert search.course() == [Best(1, 0.5), Best(2, 0.7), Best(5, 0.8), Best(6, 0.85), Best(8, 0.9)]
    assert search.ends() == [4, 6, 8]
    assert [search.stage_of(one) for one in search.trials] == [0, 2, 1, 0]


def test_run_that_is_under_way_makes_no_stage(search: SearchResult) -> None:
    running = SearchResult(RANGES, (*search.trials, trial(4, 0.2, 0.3, 0.4, stands=False, optimizer="sgd")))
    assert running.stages == (1, 2, 4)
    assert running.stage_of(running.trials[-1]) == 1
    begun = SearchResult(RANGES, (trial(0, 0.2, stands=False),))
    assert begun.stages == (1,)


def test_course_is_drawn_to_the_last_epoch(search: SearchResult) -> None:
    svg = course_chart(search)
    ElementTree.fromstring(svg)
    assert "90.00% accuracy after 8 epochs" in svg
    assert "4 to epoch 1" in svg


def test_slices_have_a_mark_for_each_run_that_has_the_option(search: SearchResult) -> None:
    panels = {panel.title: panel.svg for panel in slices(search)}
    assert list(panels) == ["optimizer", "learning_rate", "beta_1"]
    assert [panels[name].count("<circle") for name in panels] == [4, 4, 2]
    for svg in panels.values():
        ElementTree.fromstring(svg)
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', panels["learning_rate"])]
    assert len(set(places)) == 4
    assert "job 1: optimizer adam, learning_rate 0.01, beta_1 0.85: 90.00% after 4 epochs" in panels["beta_1"]


def test_longer_runs_are_larger_and_drawn_last(search: SearchResult) -> None:
    svg = slices(search)[1].svg
    assert [float(r) for r in re.findall(r' r="([\d.]+)"', svg)] == [2.5, 2.5, 4.0, 6.0]
    assert [words for _, words in legend(search)] == ["2 after 1 epoch", "1 after 2 epochs", "1 after 4 epochs"]


def test_option_with_one_value_has_no_slice() -> None:
    trials = (trial(0, 0.5, optimizer="sgd", learning_rate=0.1), trial(1, 0.6, optimizer="sgd", learning_rate=0.2))
    assert [panel.title for panel in slices(SearchResult(RANGES, trials))] == ["learning_rate"]


def test_names_are_escaped() -> None:
    trials = (trial(0, 0.5, model="<b>"), trial(1, 0.6, model="&"))
    svg = slices(SearchResult({"model": "choice(<b>,&)"}, trials))[0].svg
    ElementTree.fromstring(svg)
    assert "<b>" not in svg


def test_accuracy_that_is_no_number_is_left_out() -> None:
    trials = (trial(0, float("nan"), x=1), trial(1, 0.6, x=2), trial(2, 0.7, x=3))
    result = SearchResult({"x": "range(1,4)"}, trials)
    assert result.course() == [Best(2, 0.6), Best(3, 0.7)]
    assert slices(result)[0].svg.count("<circle") == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"search": 3}', '{"search": null}', "{" * 100, "null"])
def test_plan_that_tells_of_no_search_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    assert _ranges(tmp_path / "plan.json") == {}
    (tmp_path / "plan.json").write_text(json.dumps({"search": {"a": "interval(0,1)"}}))
    assert _ranges(tmp_path / "plan.json") == {"a": "interval(0,1)"}
    assert _ranges(tmp_path / "nothing.json") == {}


def test_search_is_told_of_all_that_has_finished_and_not_of_a_part(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"search": {"learning_rate": "interval(0,1)"}}))
    made = [
        write_run(tmp_path / str(number), None, state=state, rows=rows_of([0.5], [0.4], [0.9]), sweep=tmp_path.name,
                  varied={"learning_rate": 0.1 * number}, error=None)
        for number, state in enumerate(("finished", "finished", "paused", "running"))
    ]  # fmt: skip
    found = find(made[:3])
    assert found
    assert [trial.stands for trial in found.trials] == [True, True, True]
    assert found.trials[2].settings == {"learning_rate": 0.2}
    assert find(made[:2]) is not None
    assert find(made[1:]) is None
    (tmp_path / "plan.json").unlink()
    assert find(made) is None
