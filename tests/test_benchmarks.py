"""What the README claims: its table is the measured one, its arithmetic is right, its presets say what they gave."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import measurement, sweep, time_to_99

from experiments.conf import CONF
from experiments.config import compose

PRESETS = ("fast", "accurate", "ensemble", "tiny")
PARAMETERS = {"fast": 108_874, "accurate": 224_810, "tiny": 7_166}


def test_table_of_the_readme_is_the_measured_one() -> None:
    results = benchmarks.RESULTS.read_text().partition("\n\n")[2]
    (shown,) = benchmarks.TABLE.findall(benchmarks.README.read_text())
    assert shown == results


def test_every_claim_was_measured() -> None:
    rows = [row for table in benchmarks.earlier_rows().values() for row in table.values()]
    measured = [re.search(r"\| [1-9]\d* \| \d{4}-\d\d-\d\d \| (\w+) \|$", row) for row in rows]
    assert {found and found[1] for found in measured} == set(benchmarks.CLAIMS)


def test_ratio_is_the_median_of_the_ratios_of_rounds() -> None:
    row = measurement.compare("a ÷ b", [1, 2, 9], [2, 8, 10], 0.5)
    assert str(row) == "| a ÷ b | 2.0 s | 8.0 s | 0.50 | ≤ 0.5 | 3 |"
    assert str(measurement.state("c", [3, 1, 2], " MB", "≤ 5 MB", digits=0)) == "| c | 2 MB |  |  | ≤ 5 MB | 3 |"


def test_ratio_of_five_rounds_has_the_range_of_rounds() -> None:
    assert measurement.compare("a ÷ b", [1, 2, 3, 4, 5], [10] * 5, 0.5).ratio == "0.30 (0.1 to 0.5)"


def test_time_to_99_is_no_claim_where_a_seed_does_not_get_there() -> None:
    reached = time_to_99.judge([1.0] * 5, [10.0] * 5, [0.99, 0.991, 0.992, 0.993, 0.994])
    assert (reached.ours, reached.ratio) == ("1.0 s", "0.10 (0.1 to 0.1)")
    missed = time_to_99.judge([1.0] * 5, [10.0] * 5, [0.9899, 0.991, 0.992, 0.993, 0.994])
    assert (missed.ours, missed.theirs, missed.ratio) == ("1.0 s; 4 of 5 seeds reach it", "10.0 s", "–")


def test_sweep_is_compared_with_every_rival() -> None:
    rows = sweep.ratios("a sweep", {"ours": [1.0], **{rival: [2.0] for rival in sweep.TOLD}}, sweep.LIMITS[2])
    assert [row.claim.partition(" ÷ ")[2] for row in rows] == [*sweep.TOLD.values()]
    assert {*map(len, sweep.LIMITS.values())} == {len(sweep.TOLD)}


def test_rows_are_replaced_by_claim_and_kept_for_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(benchmarks, "README", tmp_path / "README.md")
    benchmarks.README.write_text("before\n<!-- benchmarks -->\nold\n<!-- end of benchmarks -->\nafter\n")
    assert benchmarks.earlier_rows() == {}
    tables = {"A, 2 cores; Python 3.11.7": {"a": "| a | 1 s |", "b": "| b | c | 2 s |"}, "B": {"a": "| a | 3 s |"}}
    benchmarks.write(tables)
    assert benchmarks.earlier_rows() == tables
    before, shown, after = re.split(r"<!-- .*benchmarks -->\n", benchmarks.README.read_text())
    assert (before, after) == ("before\n", "after\n")
    assert shown.count(benchmarks.HEADER) == 2
    assert benchmarks.RESULTS.read_text().endswith(shown)


@pytest.mark.usefixtures("tensorflow")
def test_useful_operations_are_those_of_the_default_network() -> None:
    import keras

    config = compose()
    model = config.model.build((28, 28, 1), 10, config.regularization)
    counts = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            places = layer.output.shape[1] * layer.output.shape[2] if len(layer.output.shape) == 4 else 1
            counts.append(int(places * layer.kernel.shape.num_elements()))
    assert counts == [sweep.FIRST, sweep.REST - 16_000, 16_000]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_tells_what_was_measured(name: str) -> None:
    header = (CONF / "experiment" / f"{name}.yaml").read_text().partition("\ndefaults:")[0]
    assert f"experiment={name}" in header
    assert re.search(r"\d\d\.\d+ % .*\bn = \d+|\bn = \d+.* \d\d\.\d+ %", header.replace("\n# ", " "))


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("name", PARAMETERS)
def test_preset_has_the_parameters_that_it_says(name: str) -> None:
    config = compose(f"experiment={name}")
    assert config.model.build((28, 28, 1), 10, config.regularization).count_params() == PARAMETERS[name]
