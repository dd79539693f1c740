from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from experiments.config import RunConfig, compose, config_key, load_config, run_key, validate, validate_saved
from experiments.errors import InputError
from experiments.ingredients.option import AsBefore, Count, Option, fill_in, leave_out


class Entry(Option):
    layer: str
    groups: Annotated[Count, AsBefore(1)]


class Small(Option):
    name: Literal["small"]


class Large(Option):
    name: Literal["large"]
    depth: Annotated[int, Field(ge=1), AsBefore(3)]
    entries: list[Entry]


class Extra(Option):
    size: Count
    more: Annotated[bool, AsBefore(False)]


class Question(Option):
    model: Annotated[Small | Large, Field(discriminator="name")]
    limit: Annotated[Count | None, AsBefore(None)]
    extra: Annotated[Extra, AsBefore({"size": 2})]
    old: Annotated[Count, AsBefore(1, keyed=True)]


OLD: dict[str, Any] = {"model": {"name": "large", "entries": [{"layer": "a"}, {"layer": "b", "groups": 2}]}}
NEW: dict[str, Any] = {
    "model": {"name": "large", "entries": [{"layer": "a", "groups": 1}, {"layer": "b", "groups": 2}], "depth": 3},
    "limit": None,
    "extra": {"size": 2, "more": False},
    "old": 1,
}


def test_fill_in_reaches_nested_options_lists_and_the_chosen_one_of_a_union() -> None:
    before = repr(OLD)
    assert fill_in(Question, OLD) == NEW
    assert Question.model_validate(fill_in(Question, OLD)).model_dump() == NEW
    assert repr(OLD) == before
    assert "depth" not in fill_in(Question, {"model": {"name": "small"}})["model"]


def test_fill_in_changes_nothing_that_is_given() -> None:
    given = NEW | {"limit": 7, "extra": {"size": 1, "more": True}, "old": 5}
    assert fill_in(Question, given) == given


@pytest.mark.parametrize("model", [None, 3, "large", [], {"name": "unknown"}, {"name": ["large"]}, {}])
def test_fill_in_leaves_what_is_no_option_to_the_validation(model: Any) -> None:
    assert fill_in(Question, {"model": model})["model"] == model


def test_leave_out_is_the_reverse_but_for_what_was_keyed_before() -> None:
    assert leave_out(Question, NEW) == OLD | {"old": 1}
    assert leave_out(Question, NEW | {"limit": 7})["limit"] == 7
    assert leave_out(Question, NEW | {"extra": {"size": 2, "more": True}})["extra"] == {"size": 2, "more": True}
    assert leave_out(Question, NEW | {"extra": {"size": 1, "more": False}})["extra"] == {"size": 1}
    changed = leave_out(Question, NEW | {"model": NEW["model"] | {"depth": 4}})
    assert changed["model"]["depth"] == 4


def test_a_filled_in_value_changes_with_nothing_else() -> None:
    filled = fill_in(Question, OLD)
    filled["extra"]["size"] = 9
    assert fill_in(Question, OLD)["extra"] == {"size": 2, "more": False}


LATER = ("shear_fraction", "stretch_fraction", "test_views")


class Later(RunConfig):
    """Tomorrow's config, which has got a knob."""

    warmth: Annotated[Count, AsBefore(1)]


def test_a_later_knob_changes_no_key_where_it_does_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    today = compose()
    saved = today.model_dump()
    keys = run_key(today, "d"), config_key(today, "d")
    monkeypatch.setattr("experiments.config.RunConfig", Later)
    as_before, warmer = validate_saved(saved), validate_saved(saved | {"warmth": 2})
    assert isinstance(as_before, Later)
    assert (run_key(as_before, "d"), config_key(as_before, "d")) == keys
    assert run_key(warmer, "d") != keys[0]
    with pytest.raises(InputError, match="warmth: missing; every value must be given"):
        validate(saved)


def test_a_config_saved_before_test_views_loads_and_a_composed_one_must_give_it(tmp_path: Path) -> None:
    config = compose("regularization=augmentation")
    values = config.model_dump()
    for knob in LATER:
        del values["regularization"]["augmentation"][knob]
    with pytest.raises(InputError, match=r"regularization\.augmentation\.test_views: missing"):
        validate(values)
    path = tmp_path / "config.yaml"
    lines = config.to_yaml().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.strip().partition(":")[0] not in LATER))
    assert load_config(path) == config
    assert config.identity()["regularization"]["augmentation"]["test_views"] == 1
