"""The verdict on two records: pure comparison, no training."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.results import files
from experiments.results.causes import Cause, find_causes
from experiments.results.files import EpochRow
from experiments.results.records import Predictions, Record
from experiments.results.verdict import Difference, as_json, compare_rows, judge, tell
from synthetic_runs import probabilities_of, rows_of, write_run

FACTS: dict[str, Any] = {
    "config": {"optimizer.learning_rate": 0.001, "seed": 0, "training.determinism": "machine"},
    "code": {
        "commit": "1" * 40,
        "dirty": False,
        "digest": "a" * 64,
        "files": {"training/loop.py": "1", "comparison/charts.py": "1", "ingredients/models.py": "1"},
    },
    "python": "3.11.7",
    "packages": {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6", "mlflow": "3.17.2"},
    "system": "Linux-6",
    "host": "one",
    "cpu": {"model": "AMD EPYC", "isa": ["avx", "avx2", "avx512_bf16"]},
    "gpus": [],
    "cores": 4,
    "threads": 4,
    "variables": {"KERAS_BACKEND": "tensorflow"},
    "dataset_digest": "d" * 64,
}


def facts(**changes: Any) -> dict[str, Any]:
    """`FACTS` with dotted keys changed; None takes one away."""
    values = copy.deepcopy(FACTS)
    for key, value in changes.items():
        *path, leaf = key.split("__")
        node = values
        for part in path:
            node = node[part]
        if value is None:
            del node[leaf]
        else:
            node[leaf] = value
    return values


def predictions(right: int = 90, *, n: int = 100, seed: int = 0) -> Predictions:
    labels = np.random.default_rng(seed).integers(0, 10, n)
    probabilities = probabilities_of(labels, np.arange(n) < right, np.full(n, 0.8))
    return Predictions(probabilities, labels, np.arange(n, dtype=np.uint64), probabilities[:20], labels[:20])


def run(
    directory: Path, *, rows: list[EpochRow] | None = None, made: Predictions | None = None, **fields: Any
) -> Record:
    found = fields.pop("facts", FACTS)
    record = write_run(directory, predictions() if made is None else made, rows=rows, **fields)
    if found is not None:
        files.write_json(directory / files.ENVIRONMENT, found)
    return record


ROWS = rows_of([0.5, 0.3, 0.2], [0.4, 0.3, 0.25], [0.9, 0.95, 0.97])


def changed(epoch: int, **values: Any) -> list[EpochRow]:
    return [dataclasses.replace(row, **values) if row.epoch == epoch else row for row in ROWS]


# Rows.


def test_equal_rows_do_not_differ_whatever_their_time() -> None:
    assert list(compare_rows(ROWS[0], dataclasses.replace(ROWS[0], seconds=99.0))) == []


def test_rows_differ_by_name_and_size_weights_last() -> None:
    other = dataclasses.replace(ROWS[1], validation_loss=0.31, train_accuracy=0.9, weights_digest="f" * 64)
    found = list(compare_rows(ROWS[1], other))
    assert [difference.metric for difference in found] == ["train/accuracy", "validation/loss", "weights_digest"]
    assert [difference.epoch for difference in found] == [2, 2, 2]
    assert found[1].size == pytest.approx(0.01)
    assert found[2].size == math.inf


def test_one_bit_is_a_difference() -> None:
    other = dataclasses.replace(ROWS[0], train_loss=math.nextafter(ROWS[0].train_loss, 1))
    (difference,) = compare_rows(ROWS[0], other)
    assert 0 < difference.size < 1e-15
    assert str(difference) == "train/loss 0.5 then, 0.5000000000000001 now"


def test_nan_equals_nan_and_nothing_else() -> None:
    diverged = dataclasses.replace(ROWS[0], train_loss=math.nan)
    assert list(compare_rows(diverged, diverged)) == []
    (difference,) = compare_rows(diverged, ROWS[0])
    assert difference.size == math.inf


# Verdicts.


def test_the_same_twice_is_identical(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", seconds=7.0))
    assert (verdict.verdict, verdict.exit_code, verdict.epochs) == ("identical", 0, 3)
    assert verdict.first is verdict.largest is None
    assert (verdict.changed_predictions, verdict.test_images) == (0, 100)
    assert tell(verdict) == ["identical: 3 epochs, all metrics and 100 predictions, bit for bit"]


def test_first_difference_in_time_is_named(tmp_path: Path) -> None:
    rows = changed(2, validation_loss=0.5, validation_accuracy=0.2, weights_digest="f" * 64)
    verdict = judge(run(tmp_path / "a", rows=ROWS), run(tmp_path / "b", rows=rows))
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
    assert verdict.first == Difference(2, "validation/loss", 0.3, 0.5)
    assert verdict.largest == Difference(2, "validation/accuracy", 0.95, 0.2)
    assert tell(verdict)[:2] == [
        "different from epoch 2 on: validation/loss 0.3 then, 0.5 now",
        "largest difference: 0.75, validation/accuracy 0.95 then, 0.2 now in epoch 2",
    ]


def test_changed_predictions_are_counted(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", made=predictions(87)))
    assert verdict.first is not None
    assert (verdict.first.epoch, verdict.changed_predictions) == (None, 3)
    lines = tell(verdict)
    assert lines[0].startswith("different only in what is known at the end: test/")
    assert "predictions changed: 3 of 100 test images" in lines


def test_predictions_of_other_images_are_not_counted(tmp_path: Path) -> None:
    made = predictions()
    others = dataclasses.replace(made, test_image_digests=made.test_image_digests + 1)
    assert judge(run(tmp_path / "a"), run(tmp_path / "b", made=others)).changed_predictions is None


def test_lost_predictions_of_the_original_are_not_counted_and_said(tmp_path: Path) -> None:
    original = run(tmp_path / "a")
    (original.directory / files.PREDICTIONS).unlink()
    verdict = judge(original, run(tmp_path / "b"))
    assert (verdict.verdict, verdict.changed_predictions) == ("identical", None)
    assert tell(verdict)[1].startswith("the predictions were compared by their digest only: ")
    assert str(original.directory / files.PREDICTIONS) in tell(verdict)[1]


@pytest.mark.parametrize(
    ("tolerance", "word", "code"),
    [(None, "different", 1), (0.001, "different", 1), (0.02, "equal within tolerance", 0)],
)
def test_tolerance_decides_what_passes(tolerance: float | None, word: str, code: int, tmp_path: Path) -> None:
    rows = changed(3, validation_loss=0.26, weights_digest="f" * 64)
    fields = {"weights_digest": "e" * 64, "predictions_digest": "e" * 64}
    verdict = judge(run(tmp_path / "a", rows=ROWS), run(tmp_path / "b", rows=rows, **fields), tolerance=tolerance)
    assert (verdict.verdict, verdict.exit_code) == (word, code)
    assert verdict.largest is not None
    assert verdict.largest.size == pytest.approx(0.01)
    if word.startswith("equal"):
        assert tell(verdict)[0] == "equal within tolerance 0.02: 3 epochs and all metrics"
        assert tell(verdict)[1] == "largest difference: 0.01, validation/loss 0.25 then, 0.26 now in epoch 3"


def test_no_tolerance_passes_a_nan(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", rows=changed(3, validation_loss=math.nan)), tolerance=1e9)
    assert verdict.verdict == "different"


def test_fewer_epochs_are_a_difference(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a", rows=ROWS), run(tmp_path / "b", rows=ROWS[:2]))
    assert verdict.first == Difference(3, "epochs", 3, 2)


def test_stopped_repeat_is_compared_as_far_as_it_came(tmp_path: Path) -> None:
    rows = changed(2, train_loss=0.9)[:2]
    fields = {"state": "interrupted", "metrics": {}, "weights_digest": None, "predictions_digest": None}
    verdict = judge(run(tmp_path / "a", rows=ROWS), run(tmp_path / "b", rows=rows, **fields))
    assert (verdict.verdict, verdict.epochs, verdict.complete) == ("different", 2, False)
    assert verdict.first == Difference(2, "train/loss", 0.3, 0.9)
    whole = judge(run(tmp_path / "c", rows=ROWS), run(tmp_path / "d", rows=ROWS[:2], **fields))
    assert whole.first is None


def test_runs_that_diverge_alike_are_identical(tmp_path: Path) -> None:
    rows = changed(3, train_loss=math.nan)
    pair = [write_run(tmp_path / name, None, rows=rows, state="diverged") for name in "ab"]
    for record in pair:
        files.write_json(record.directory / files.ENVIRONMENT, FACTS)
    assert judge(*pair).verdict == "identical"
    finished = run(tmp_path / "c", rows=rows)
    assert judge(finished, pair[1]).first == Difference(None, "state", "finished", "diverged")


def test_verdict_is_plain_json(tmp_path: Path) -> None:
    verdict = judge(
        run(tmp_path / "a"), run(tmp_path / "b", rows=changed(1, train_loss=math.nan), facts=facts(threads=1))
    )
    values = json.loads(json.dumps(as_json(verdict), allow_nan=False))
    assert values["verdict"] == "different"
    assert values["first"] == {"epoch": 1, "metric": "train/loss", "then": 0.5, "now": "nan"}
    assert values["causes"] == [{"kind": "threads", "text": "threads: 4 then, 1 now", "likely": True}]
    assert values["lines"] == tell(verdict)


# Causes.


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"config__optimizer.learning_rate": 0.002},
            "config: optimizer.learning_rate 0.001 then, 0.002 now (config.yaml was changed after the run)",
        ),
        (
            {"dataset_digest": "e" * 64},
            "data: the images or labels are not the same (SHA-256 dddddddddddd… then, eeeeeeeeeeee… now)",
        ),
        ({"threads": 2}, "threads: 4 then, 2 now"),
        ({"packages__tensorflow": "2.22.0"}, "package: tensorflow 2.21.0 then, 2.22.0 now"),
        ({"cpu__isa": ["avx", "avx2"]}, "CPU: has no avx512_bf16 now"),
        ({"cpu__isa": ["avx", "avx2", "avx512_bf16", "amx"]}, "CPU: had no amx then"),
        ({"cpu__model": "Intel Xeon"}, "CPU: AMD EPYC then, Intel Xeon now"),
        ({"gpus": ["H100"]}, "GPU: none then, H100 now"),
        ({"variables__ONEDNN_MAX_CPU_ISA": "AVX"}, "variable: ONEDNN_MAX_CPU_ISA not there then, AVX now"),
    ],
)
def test_each_likely_cause_is_named_with_both_values(changes: dict[str, Any], text: str) -> None:
    assert find_causes(FACTS, facts(**changes)) == [Cause(find_causes(FACTS, facts(**changes))[0].kind, text)]


@pytest.mark.parametrize(
    "changes",
    [
        {"packages__mlflow": "4"},
        {"python": "3.12.0"},
        {"system": "Linux-7"},
        {"variables__OMP_NUM_THREADS": "4"},
        {"variables__CUDA_VISIBLE_DEVICES": "0"},
    ],
)
def test_what_takes_no_part_is_named_but_not_likely(changes: dict[str, Any]) -> None:
    (cause,) = find_causes(FACTS, facts(**changes))
    assert not cause.likely


def test_variables_of_a_gpu_matter_where_there_is_one() -> None:
    (cause,) = find_causes(facts(gpus=["H100"]), facts(gpus=["H100"], variables__CUDA_VISIBLE_DEVICES="-1"))
    assert cause.likely


@pytest.mark.parametrize("name", ["host", "cores"])
def test_another_place_alone_is_no_difference(name: str) -> None:
    assert find_causes(FACTS, facts(**{name: "other"})) == []


def code(commit: str = "1" * 40, **files: str) -> dict[str, Any]:
    names = {name.replace("__", "/") + ".py": digest for name, digest in files.items()}
    return facts(code={**FACTS["code"], "commit": commit, "digest": "b" * 64, "files": FACTS["code"]["files"] | names})


def test_changed_code_is_named_by_file_and_commit() -> None:
    (cause,) = find_causes(FACTS, code("2" * 40, training__loop="2"))
    assert cause.text == "code: training/loop.py changed (commit 111111111111 then, 222222222222 now)"
    (cause,) = find_causes(FACTS, code(training__loop="2", training__new="1"))
    expected = (
        "code: training/loop.py, training/new.py changed (commit 111111111111 both times; see code.diff of both runs)"
    )
    assert cause.text == expected


def test_code_that_takes_no_part_in_training_is_not_likely() -> None:
    (cause,) = find_causes(FACTS, code(comparison__charts="2"))
    assert (cause.text, cause.likely) == ("code: comparison/charts.py changed", False)
    first, second = find_causes(FACTS, code(comparison__charts="2", ingredients__models="2"))
    assert (first.likely, second.likely) == (True, False)


def test_code_of_a_record_without_files_is_likely() -> None:
    then = facts(code={"commit": "not available", "digest": "a" * 64})
    (cause,) = find_causes(then, facts(code={**FACTS["code"], "digest": "b" * 64, "files": {}}))
    assert (cause.text, cause.likely) == ("code: the sources changed (not under git)", True)


def test_surest_cause_comes_first() -> None:
    now = facts(
        config__seed=1,
        dataset_digest="e" * 64,
        threads=1,
        packages__keras="4",
        packages__mlflow="4",
        cpu={"model": "Intel", "isa": ["avx"]},
        variables={"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "0"},
        code={**FACTS["code"], "digest": "b" * 64, "files": {}},
    )
    found = find_causes(FACTS, now)
    kinds = ["config", "data", "threads", "code", "package", "cpu", "cpu", "variable"]
    assert [cause.kind for cause in found if cause.likely] == kinds
    assert [cause.likely for cause in found] == sorted((cause.likely for cause in found), reverse=True)


def test_portable_runs_do_not_blame_the_cpu() -> None:
    portable = {"config__training.determinism": "portable"}
    (cause,) = find_causes(facts(**portable), facts(**portable, cpu={"model": "Intel", "isa": FACTS["cpu"]["isa"]}))
    assert not cause.likely


def test_original_that_went_on_elsewhere_is_a_cause() -> None:
    (cause,) = find_causes(facts(resumed=["threads: 4 then, 2 now"]), FACTS)
    assert cause.likely
    assert "interrupted" in cause.text
    assert cause.text.endswith("went on after a change (threads: 4 then, 2 now)")


def test_nothing_known_differs_is_said(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", rows=changed(1, train_loss=0.6)))
    assert tell(verdict)[-1].startswith("nothing known differs")


def test_causes_stand_in_a_numbered_list(tmp_path: Path) -> None:
    now = facts(threads=1, packages__keras="4", python="3.12.0")
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", rows=changed(1, train_loss=0.6), facts=now))
    assert tell(verdict)[-4:] == [
        "likely causes, the likeliest first:",
        "  1. threads: 4 then, 1 now",
        "  2. package: keras 3.15.1 then, 4 now",
        "differs too, and should not matter: python: 3.11.7 then, 3.12.0 now",
    ]


def test_identical_in_spite_of_a_difference_says_so(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a"), run(tmp_path / "b", facts=facts(packages__keras="4")))
    assert tell(verdict)[1:] == ["differs, without effect:", "  1. package: keras 3.15.1 then, 4 now"]


def test_missing_environment_is_said(tmp_path: Path) -> None:
    verdict = judge(run(tmp_path / "a", facts=None), run(tmp_path / "b", rows=changed(1, train_loss=0.6)))
    assert [cause.kind for cause in verdict.causes] == ["unknown"]


@pytest.mark.parametrize(
    "damage",
    [
        {"code": None}, {"cpu": "x"}, {"config": ["a"]}, {"gpus": 3}, {"resumed": 7}, {"packages": 1}, {"threads": {}},
        {"cpu": {"isa": "not available"}},
    ],
)  # fmt: skip
def test_damaged_environment_is_no_traceback(damage: dict[str, Any]) -> None:
    for cause in find_causes(FACTS | damage, FACTS) + find_causes(FACTS, FACTS | damage):
        assert cause.text
