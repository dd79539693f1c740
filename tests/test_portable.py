"""`training.determinism: portable`: the same bits on every x86-64 CPU with AVX2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Ending, environment, started
from experiments.config import available_cores, compose
from experiments.errors import InputError
from experiments.results import environment as machine
from experiments.results import records
from experiments.training import runtime
from portable_runs import GRAPHS, RUNS, SMALL

CHILD = Path(__file__).parent / "portable_runs.py"
MADE_WITH = {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"}
# The beginnings of SHA-256 over the final weights, the test predictions and the history of each of `RUNS`. The same
# came from an AMD EPYC (Zen 5, AVX-512) and, emulated by QEMU 7.2, from an Intel Haswell and an AMD EPYC-Milan (AVX2).
GOLDEN = {
    "convolutions": {"weights": "7ba9b5fb29ffebc9", "predictions": "dd4d0e274833489e", "history": "9feb1c68aa5ecfc3"},
    "batch normalisation": {
        "weights": "f164a5338b579c93",
        "predictions": "aa4dcfc1c751fb47",
        "history": "cb17ad12149707e2",
    },
    "dense": {"weights": "06d6f89ac09a8c67", "predictions": "c090d261bdfc6d66", "history": "f6fc8adc719f89df"},
    "average pooling": {
        "weights": "6138e529a8b89ada",
        "predictions": "9fc1fb742ffc161b",
        "history": "3594b70d9a6365f5",
    },
    "linear": {"weights": "98f49adb104fef70", "predictions": "427a21e32e550383", "history": "09851f6ff09aa15f"},
}


def measured(*names: str, cores: int | None = None, **variables: str) -> dict[str, Any]:
    """What one process of its own prints of some of `RUNS` and `GRAPHS`, on the first `cores` cores."""
    pinned = None if cores is None else lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    done = subprocess.run(
        [sys.executable, str(CHILD), *names],
        capture_output=True, text=True, check=False, preexec_fn=pinned, env=environment(Path.cwd(), **variables),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def as_made() -> None:
    """Only the versions that made the golden digests make them again."""
    if machine.versions() != MADE_WITH:
        pytest.skip(f"made with {MADE_WITH}, here are {machine.versions()}")
    if "avx2" not in machine.cpu()["isa"]:
        pytest.skip("this CPU has no AVX2")


def some_on_one_core(_: Path) -> dict[str, Any]:
    return measured("linear", "batch normalisation", cores=1, OMP_NUM_THREADS="3", MKL_NUM_THREADS="2")


def all_on_all_cores(_: Path) -> dict[str, Any]:
    return measured(*RUNS, GRAPHS, OMP_NUM_THREADS="16", TF_NUM_INTRAOP_THREADS="16")


def two_side_by_side(home: Path) -> Path:
    """The sweep whose jobs are two of `RUNS`."""
    with started(home, "-m", *SMALL, *RUNS["convolutions"], "tracking=none", "seed=0,1", "sweep.workers=2") as command:
        ended = command.finish()
    assert ended.code == 0, ended
    return Path(ended.out.splitlines()[-1])


SCENARIOS = (some_on_one_core, all_on_all_cores, two_side_by_side)


@pytest.mark.slow
@pytest.mark.usefixtures("as_made")
def test_golden_digests_come_again_on_all_cores(endings: dict[str, Ending[Any]]) -> None:
    found = endings["all_on_all_cores"].result()
    assert {name: found[name] for name in RUNS} == GOLDEN


@pytest.mark.exhaustive
@pytest.mark.usefixtures("as_made")
def test_golden_digests_come_again_on_one_core_in_another_order_whatever_openmp_is_told(
    endings: dict[str, Ending[Any]],
) -> None:
    found = endings["some_on_one_core"].result()
    assert found == {name: GOLDEN[name] for name in ("linear", "batch normalisation")}


@pytest.mark.slow
@pytest.mark.usefixtures("as_made")
def test_job_of_a_sweep_has_the_golden_digests(endings: dict[str, Ending[Any]]) -> None:
    first, second = (records.load(endings["two_side_by_side"].result() / number) for number in "01")
    golden = GOLDEN["convolutions"]
    assert (first.weights_digest or "").startswith(golden["weights"])
    assert (first.predictions_digest or "").startswith(golden["predictions"])
    assert second.weights_digest != first.weights_digest
    assert first.environment["variables"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.usefixtures("as_made")
@pytest.mark.parametrize("threads", [None, "1", "2", "16"])
@pytest.mark.parametrize("cores", [1, 2, None])
def test_golden_digests_come_again_on_any_cores(threads: str | None, cores: int | None) -> None:
    if cores is not None and cores > available_cores():
        pytest.skip(f"needs {cores} cores")
    variables = {} if threads is None else {"OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
    assert measured(*RUNS, cores=cores, **variables) == GOLDEN


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.usefixtures("as_made")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_golden_digests_come_again_with_any_number_of_workers(workers: int, home: Path) -> None:
    for name, overrides in RUNS.items():
        with started(
            home, "-m", *SMALL, *overrides, "tracking=none", "seed=0,1,2", f"sweep.workers={workers}"
        ) as command:
            job = records.load(Path(command.finish().out.splitlines()[-1]) / "0")
        assert (job.weights_digest or "").startswith(GOLDEN[name]["weights"])
        assert (job.predictions_digest or "").startswith(GOLDEN[name]["predictions"])


def training(determinism: str = "portable", threads: int = 1) -> Any:
    return compose(f"training.determinism={determinism}", f"training.threads={threads}").training


def test_portable_is_recorded_by_its_variables() -> None:
    wanted = runtime.variables(training())
    assert wanted["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert wanted["TF_ENABLE_ONEDNN_OPTS"] == "1"  # left to itself, TensorFlow decides by the CPU
    assert machine.matter(wanted).keys() >= {"ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES"}
    assert "ONEDNN_MAX_CPU_ISA" not in runtime.variables(training("machine"))


def test_machine_without_avx2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in (["sse4_2", "avx"], machine.NOT_AVAILABLE):
        monkeypatch.setattr(machine, "cpu", lambda isa=isa: {"model": "Some CPU", "isa": isa})
        with pytest.raises(InputError, match=r"^training.determinism: portable needs a CPU with AVX2"):
            runtime.variables(training())
        assert runtime.variables(training("machine"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("TF_ENABLE_ONEDNN_OPTS", "0"), ("ONEDNN_MAX_CPU_ISA", "SSE41"), ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")],
)
def test_variable_that_chooses_other_kernels_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"portable cannot be kept with {name}={value}; unset it"):
        runtime.variables(training())
    assert runtime.variables(training("machine"))


def test_process_that_has_started_otherwise_is_refused(tensorflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one: with one thread, for this machine."""
    tensorflow.constant(1) + 1
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(InputError, match=r"has started in this process with 1 threads, machine; 1 threads, portable"):
        runtime.prepare(training())
    with pytest.raises(InputError, match=r"with 1 threads, machine; 2 threads, machine needs a new process"):
        runtime.prepare(training("machine", 2))
    runtime.prepare(training("machine"))


def test_portable_wants_one_thread_and_float32() -> None:
    with pytest.raises(InputError, match="threads must be 1"):
        training(threads=2)
    with pytest.raises(InputError, match="precision must be float32"):
        compose("training.determinism=portable", "training.precision=mixed_bfloat16")


# Without a CPU of another make: no operation that starts from an approximation may be left in a graph.


APPROXIMATE = {"Rsqrt", "Reciprocal", "Inv", "FusedBatchNormV3", "FusedBatchNormGradV3"}


@pytest.mark.slow
def test_no_operation_starts_from_an_approximation(endings: dict[str, Ending[Any]]) -> None:
    found, options = endings["all_on_all_cores"].result()[GRAPHS]
    for names in found:
        assert {"Sqrt", "DivNoNan"} <= set(names)
        assert not APPROXIMATE & set(names)
    assert options["arithmetic_optimization"] is False  # it would turn x / sqrt(y) into x * rsqrt(y)
