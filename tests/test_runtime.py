"""What is set before TensorFlow starts, and where its own lines go; `portable` has tests of its own."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from experiments.config import compose
from experiments.errors import InputError
from experiments.training import runtime

X86 = platform.machine() in ("x86_64", "AMD64")


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


@pytest.mark.skipif(not X86, reason="oneDNN is TensorFlow's own choice elsewhere")
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_where_nothing_else_was_asked_for(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    assert runtime.variables_of_import()["TF_ENABLE_ONEDNN_OPTS"] == expected
    assert runtime.variables(compose("training.threads=1").training) == runtime.variables_of_import()


@pytest.mark.skipif(not X86, reason="oneDNN is TensorFlow's own choice elsewhere")
@pytest.mark.parametrize("given", ["0", "False"])
def test_tensorflow_that_was_imported_with_other_kernels_is_refused(
    tensorflow: Any, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a notebook's that imports TensorFlow first, on a CPU for which its own choice is another one."""
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled

    assert IsMklEnabled()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    for _ in range(2):  # the first try leaves nothing that would let the second one pass
        with pytest.raises(InputError) as refused:
            runtime.prepare(compose("training.threads=1").training)
        assert str(refused.value) == (
            "training: TensorFlow was imported in this process with oneDNN on, and TF_ENABLE_ONEDNN_OPTS is "
            f"{given.lower()}: results would not be those of other processes; before the first import of tensorflow or "
            f'keras, set os.environ["TF_ENABLE_ONEDNN_OPTS"] = "{given.lower()}"'
        )


@pytest.mark.parametrize("given", ["1", "true", "what TensorFlow cannot read"])
def test_tensorflow_that_was_imported_with_the_same_kernels_is_used(
    tensorflow: Any, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
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
