"""Races and searches as plain values: what programs get."""

from __future__ import annotations

import json

import pytest

from experiments.comparison.course_exports import race_values, search_values
from experiments.comparison.races import RaceResult
from test_race_report import POINTS, raced, setting
from test_search_report import search  # noqa: F401


def test_race_has_verdict_field_and_cost() -> None:
    values = json.loads(json.dumps(race_values(raced())))
    assert (values["verdict"], values["leader"], values["rounds"]) == ("within", "sgd", 3)
    assert values["bound"] == pytest.approx(0.0617, abs=5e-5)
    sgd, adam, rmsprop = values["configurations"]
    assert (sgd["state"], sgd["seeds"], sgd["behind"]) == ("in", 5, None)
    assert (adam["state"], adam["seeds"], adam["behind"]) == ("in", 5, "sgd")
    assert adam["difference"] == pytest.approx(POINTS[0].mean() - POINTS[1].mean())
    assert adam["low"] == pytest.approx(-values["bound"])
    assert (rmsprop["state"], rmsprop["seeds"], rmsprop["behind"]) == ("worse", 3, "sgd")
    assert rmsprop["low"] == pytest.approx(0.3174, abs=5e-5)
    assert values["cost"] == {"counted": 0, "ahead": 0, "reused": 0, "epochs": 0, "seconds": 0}


def test_race_without_a_decision_is_open() -> None:
    values = race_values(RaceResult(setting(5), (), {}, "a-race"))
    assert (values["verdict"], values["leader"], values["bound"]) == ("open", None, None)
    assert [c["difference"] for c in values["configurations"]] == [None] * 3


def test_search_has_ranges_and_trials(search) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    values = json.loads(json.dumps(search_values(search)))
    assert values["stages"] == [1, 2, 4]
    assert values["epochs"] == 8
    assert values["trials"][1] == {
        "job": 1, "settings": {"optimizer": "adam", "learning_rate": 0.01, "beta_1": 0.85}, "epochs": 4,
        "validation/accuracy": 0.9, "stage": 2,
    }  # fmt: skip
