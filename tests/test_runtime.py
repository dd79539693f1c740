"""What is set before TensorFlow starts, and where its own lines go; `portable` has tests of its own."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from experiments.config import compose
from experiments.errors import InputError
from experiments.ingredients import kernels
from experiments.training import runtime


def test_collection_rests_during_an_import_and_goes_on_after_it() -> None:
    with contextlib.suppress(ZeroDivisionError), runtime.without_collection():
        assert not gc.isenabled()
        print(1 / 0)
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with runtime.without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_portable_nothing_is_set_that_the_import_does_not_read() -> None:
    assert runtime.variables(compose("training.threads=1").training) == kernels.variables_of_import()


def test_tensorflow_with_other_kernels_is_refused_every_time(tensorflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.ONEDNN not in kernels.variables_of_import():
        pytest.skip("oneDNN is TensorFlow's own choice here")
    monkeypatch.setattr(kernels, "ONEDNN", "ONEDNN_HERE")
    monkeypatch.setenv("ONEDNN_HERE", "0")
    for _ in range(2):
        with pytest.raises(InputError, match="with oneDNN on, and ONEDNN_HERE is 0"):
            runtime.prepare(compose("training.threads=1").training)


def test_native_output_goes_to_the_log_and_pythons_to_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.log"
    log.write_text("first\n")
    with os.fdopen(os.dup(2), "w", buffering=1) as screen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_stderr_of_its_own", lambda: screen)  # it keeps the screen of its first call
        _write_by_every_way(log)
    assert log.read_text() == "first\nwhile importing\nwhile training\n"
    assert capfd.readouterr().err == "told\nafter\n"


def _write_by_every_way(log: Path) -> None:
    with runtime.quiet() as output:
        os.write(2, b"while importing\n")
        output.move_to(log)
        os.write(2, b"while training\n")
        print("told", file=sys.stderr)
    os.write(2, b"after\n")


def test_native_output_without_a_log_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with runtime.quiet():
        os.write(2, b"nobody reads this\n")
    assert sys.stderr is before
    assert capfd.readouterr().err == ""


def test_second_run_in_a_process_is_refused_from_every_thread() -> None:
    refusals: list[str] = []

    def run() -> None:
        try:
            with runtime.alone():
                pass
        except InputError as error:
            refusals.append(str(error))

    with runtime.alone():
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(refusals) == 2
    assert all("a run is going on in this process already" in line for line in refusals)
    run()
    assert len(refusals) == 2


def test_run_that_fails_lets_the_next_one_begin() -> None:
    with pytest.raises(ValueError, match="x"), runtime.alone():
        raise ValueError("x")
    with runtime.alone():
        pass


def test_advice_on_retracing_is_not_given(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tensorflow")
    advice = "5 out of the last 5 calls to <function> triggered tf.function retracing. Tracing is expensive"
    with runtime.quiet():
        log.warning(advice)
        log.warning("something else")
    assert [record.getMessage() for record in caplog.records if record.name == "tensorflow"] == ["something else"]
    log.warning(advice)
    assert advice in caplog.messages
