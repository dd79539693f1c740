"""What a search may choose, and which points it tries."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.conf import CONF
from experiments.errors import InputError
from experiments.sweeps.composition import Composer
from experiments.sweeps.proposals import propose
from experiments.sweeps.ranges import Range, ranges_of
from experiments.sweeps.space import Space, make_space

Spaces = Callable[..., Space]


@pytest.fixture(scope="module")
def space() -> Iterator[Spaces]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
        parser = OverridesParser.create()
        yield lambda *given: make_space(parser.parse_overrides(list(given)), composer.compose)


def read(text: str) -> Range:
    found = ranges_of(OverridesParser.create().parse_overrides([f"a.b={text}"])[0])
    assert found
    return found[""]


@pytest.mark.parametrize(
    ("text", "places", "values"),
    [
        ("interval(0,10)", (0, 0.25, 0.99999), ["0.0", "2.5", "10.0"]),
        ("interval(-1,1)", (0, 0.5), ["-1.0", "0.0"]),
        ("interval(0.9,0.9001)", (0, 0.12345), ["0.9", "0.90001235"]),
        ("tag(log,interval(1e-4,1e-1))", (0, 1 / 3, 2 / 3), ["0.0001", "0.001", "0.01"]),
        ("int(interval(1,4))", (0, 0.24, 0.25, 0.99), ["1", "1", "2", "4"]),
        ("int(tag(log,interval(1,99)))", (0, 0.5, 0.9999), ["1", "10", "99"]),
        ("1,2,x", (0, 0.34, 0.99), ["1", "2", "x"]),
        ("choice([8,8],[16])", (0, 0.5), ["[8,8]", "[16]"]),
        ("range(1,7,2)", (0, 0.4, 0.7), ["1", "3", "5"]),
        ("shuffle(1,2,3)", (0, 0.4, 0.7), ["1", "2", "3"]),
    ],
)
def test_places_become_values(text: str, places: tuple[float, ...], values: list[str]) -> None:
    assert [read(text).at(place) for place in places] == values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("interval(1,1)", "the lower bound must be below the upper one, received 1 and 1"),
        ("interval(0.1,0.0001)", "the lower bound must be below the upper one, received 0.1 and 0.0001"),
        ("tag(log,interval(0,1))", "a logarithmic interval must begin above 0, received 0"),
        ("tag(log,interval(-1,1))", "a logarithmic interval must begin above 0, received -1"),
        ("interval(nan,1)", "bounds must be finite, received nan and 1.0"),
        ("interval(0,inf)", "bounds must be finite"),
        ("tag(logarithmic,interval(1,2))", "no such tag logarithmic; valid: log"),
        ("tag(log,range(1,4))", "log goes with an interval"),
        ("range(3,1)", "gives no value"),
        ("range(0,1000000000000)", "more than 100,000 values"),
    ],
)
def test_what_is_no_range_is_refused_with_what_was_given(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert len(caught.value.mistakes) == 1
    assert told in caught.value.mistakes[0]
    assert text in caught.value.mistakes[0]


def test_key_that_only_some_options_have_is_left_out_elsewhere(space: Spaces) -> None:
    points = propose(space("optimizer=sgd,adam", "optimizer.beta_1=interval(0.8,0.9)", "training.epochs=2"), 20, 0)
    assert len(set(points)) == 20
    for point in points:
        has_beta = any(text.startswith("optimizer.beta_1=") for text in point)
        assert has_beta == ("optimizer=adam" in point)
        assert point[0] == "training.epochs=2"
    assert points.count(("training.epochs=2", "optimizer=sgd")) == 1


def test_ranges_by_option(space: Spaces) -> None:
    given = "optimizer.learning_rate={sgd: tag(log,interval(0.01,1)), adam: tag(log,interval(1e-4,1e-3))}"
    points = propose(space("optimizer=sgd,adam,lion", given), 30, 0)
    rates: dict[str, list[float]] = {"sgd": [], "adam": [], "lion": []}
    for option, *rest in points:
        rates[option.partition("=")[2]] += [float(text.partition("=")[2]) for text in rest]
    assert all(0.01 <= rate <= 1 for rate in rates["sgd"])
    assert all(1e-4 <= rate <= 1e-3 for rate in rates["adam"])
    assert rates["lion"] == []  # not named: its own rate


def test_option_that_is_not_swept_has_its_ranges_too(space: Spaces) -> None:
    points = propose(space("optimizer=sgd", "optimizer.learning_rate={sgd: interval(0.1,0.2)}"), 3, 0)
    assert all(text.startswith("optimizer.learning_rate=0.1") for _, text in points)


def test_equal_slices_and_even_filling(space: Spaces) -> None:
    points = propose(space("optimizer=sgd,rmsprop,adam", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))"), 48, 0)
    assert set(Counter(point[0] for point in points).values()) <= {15, 16, 17}
    decades = Counter(float(point[1].partition("=")[2]) // 1e-3 > 0 for point in points)
    assert 30 <= decades[True] <= 34  # two of three decades


def test_same_command_gives_the_same_points_and_more_jobs_extend_them(space: Spaces) -> None:
    given = ("model=cnn,mlp", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))")
    forty = propose(space(*given), 40, 0)
    assert propose(space(*given), 40, 0) == forty
    assert propose(space(*given), 300, 0)[:40] == forty
    assert propose(space(*given), 40, 1) != forty


def test_finite_space_is_tried_whole(space: Spaces) -> None:
    small = space("optimizer=sgd,adam", "optimizer.beta_1=0.8,0.9", "training.batch_size=int(interval(30,31))")
    points = propose(small, 100, 0)
    assert len(points) == len(set(points)) == 6
    assert propose(small, 4, 0) == points[:4]


def test_space_of_one_point_is_no_search(space: Spaces) -> None:
    with pytest.raises(InputError, match="one configuration only"):
        propose(space("optimizer=sgd", "optimizer.learning_rate=choice(0.1)"), 5, 0)


def test_ranges_are_told_as_they_were_given(space: Spaces) -> None:
    by_option = "optimizer.learning_rate={sgd: interval(0.1,0.2), adam: tag(log,interval(1e-4,1e-3))}"
    found = space("training.epochs=5", "optimizer=sgd,adam", by_option, "training.batch_size=int(interval(16,64))")
    assert list(found.texts.items()) == [
        ("optimizer", "choice(sgd,adam)"),
        ("optimizer.learning_rate", "{sgd: interval(0.1,0.2), adam: tag(log,interval(0.0001,0.001))}"),
        ("training.batch_size", "int(interval(16,64))"),
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["optimizer=adam"], ["sweep.jobs: a search needs a range"]),
        (
            ["optimizer.learning_rate=interval(-1,1)"],
            ["optimizer.learning_rate: must be greater than 0, received -1.0"],
        ),
        (["optimizer.beta_1=interval(0.5,1)"], ["optimizer.beta_1: must be less than 1, received 1.0"]),
        (
            ["training.batch_size=interval(16.5,128)"],
            ["received 16.5; int(interval(16.5,128)) gives whole numbers", "received 128.0"],
        ),
        (
            ["optimizer=sgd,sgd_momentum", "optimizer.rho=interval(0.1,0.9)"],
            ["optimizer.rho: no such key; it belongs to"],
        ),
        (["optimizer.learningrate=interval(0.1,0.9)"], ["no such key; did you mean learning_rate?"]),
        (["optimizer=sgd,addam", "optimizer.learning_rate=interval(0.1,0.9)"], ["did you mean adam?"]),
        (
            ["optimizer=sgd,adam", "optimizer.learning_rate={sgd: interval(0.1,1), lion: interval(0.1,1)}"],
            ["optimizer.learning_rate: optimizer=lion is not among the options that are chosen"],
        ),
        (["seed=1,2"], ["a search trains with one seed"]),
        (["sweep.workers=1,2"], ["must be the same in all jobs"]),
        (["optimizer=interval(0,1)"], ["optimizer is chosen among options that are named"]),
        (["+optimizer.x=interval(0,1)"], ["without + or a package"]),
        (
            ["optimizer.learning_rate=interval(1,0.1)", "regularization.dropout=tag(log,interval(0,0.5))"],
            ["the lower bound", "must begin above 0"],
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(space: Spaces, given: list[str], told: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        space(*given)
    assert len(caught.value.mistakes) == len(told)
    for mistake, words in zip(caught.value.mistakes, told, strict=True):
        assert words in mistake


def test_planning_a_search_imports_neither_tensorflow_nor_mlflow() -> None:
    """Nor does a plain sweep import scipy's sequences, which take a second."""
    code = "import sys, experiments.sweeps.launch, experiments.sweeps.proposals as p; "
    code += "assert 'scipy.stats.qmc' not in sys.modules; list(zip(range(3), p._sobol(2, 0))); "
    code += "assert not {'tensorflow', 'keras', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
