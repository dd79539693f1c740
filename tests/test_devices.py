"""Training on GPUs: how a sweep shares them, what a process is set to. There is none here: the lists are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from conftest import SMALL
from experiments import gpus
from experiments.conf import CONF
from experiments.config import RunConfig, compose
from experiments.errors import InputError
from experiments.gpus import GPU
from experiments.recording import gather_facts
from experiments.results.causes import find_causes
from experiments.sweeps import preflight
from experiments.sweeps.composition import Composer
from experiments.sweeps.executors import cores, local, processes
from experiments.sweeps.executors import devices as sharing
from experiments.sweeps.executors.processes import Planner, Worker
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.training import devices, trial
from test_verdict import facts

GIB = 2**30
A, B = GPU("GPU-a", "NVIDIA T4", 16 * GIB), GPU("GPU-b", "NVIDIA T4", 16 * GIB)
FREE = tuple(text for text in SMALL if not text.startswith("training.threads"))


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(lambda overrides: hydra_compose("config", overrides=overrides))


@pytest.fixture
def planned(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """Plans the product of choices on a machine of 16 cores, with GPUs that TensorFlow sees."""

    def make(*choices: str, found: tuple[GPU, ...] = (A, B), seen: int = 9) -> Plan:
        for module in (cores, sharing):
            monkeypatch.setattr(module, "available_cores", lambda: 16)
        monkeypatch.setattr(gpus, "visible", lambda: list(found))
        monkeypatch.setattr(sharing, "_ask_a_worker", lambda: seen)
        split = [[f"{k}={v}" for v in text.split(",")] for k, _, text in (c.partition("=") for c in choices)]
        return sharing.use_gpus(make_plan([[*FREE, *job] for job in product(*split)], composer))

    return make


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process is set to is forgotten."""
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    yield
    devices._share.clear()
    devices._trains_on.clear()


# How a sweep shares them.


@pytest.mark.parametrize(
    ("choices", "workers", "threads", "memory"),
    [
        (["seed=range(8)"], 2, 8, None),
        (["seed=0"], 1, 16, None),
        (["seed=range(8)", "sweep.workers=1"], 1, 16, None),
        (["seed=range(8)", "sweep.per_gpu=2"], 4, 4, 8 * GIB - GIB // 2),
        (["seed=range(8)", "sweep.per_gpu=4", "sweep.workers=3"], 3, 5, 4 * GIB - GIB // 2),
        (["seed=range(30)", "sweep.per_gpu=12"], 24, 1, 16 * GIB // 12 - GIB // 2),
        (["seed=range(8)", "training.threads=3"], 2, 3, None),
    ],
)
def test_one_job_a_gpu_or_as_many_as_asked_for(
    planned: Callable[..., Plan], choices: list[str], workers: int, threads: int, memory: int | None
) -> None:
    wide = [text.replace("range(8)", "0,1,2,3,4,5,6,7") for text in choices]
    wide = [text.replace("range(30)", ",".join(map(str, range(30)))) for text in wide]
    plan = planned(*wide)
    assert (plan.workers, plan.threads) == (workers, threads)
    assert plan.gpus == tuple(gpu._replace(memory_bytes=memory) for gpu in (A, B)[:workers])


def test_shared_gpus_are_told(planned: Callable[..., Plan]) -> None:
    assert planned("seed=0,1,2").resources == "2 workers × 8 threads on 2 GPUs (NVIDIA T4)"
    assert planned("seed=0,1,2", found=()).resources == "3 workers × 5 threads"


def test_more_workers_than_places_are_capped(planned: Callable[..., Plan], caplog: pytest.LogCaptureFixture) -> None:
    assert planned("seed=0,1,2,3", "sweep.workers=4").workers == 2
    assert "sweep.workers: 4 on 2 GPUs (NVIDIA T4) need a larger sweep.per_gpu; using 2" in caplog.messages


def test_share_that_is_too_small_is_refused(planned: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match=r"sweep.per_gpu: must be ≤ 16 on the 17.2 GB of NVIDIA T4, received 17"):
        planned("seed=0,1", "sweep.per_gpu=17")


def test_memory_that_is_not_known_is_not_limited(planned: Callable[..., Plan]) -> None:
    plan = planned("seed=0,1,2", "sweep.per_gpu=2", found=(GPU("MIG-x"),))
    assert (plan.workers, plan.gpus) == (2, (GPU("MIG-x"),))


def test_gpus_that_tensorflow_does_not_see_are_not_used(
    planned: Callable[..., Plan], caplog: pytest.LogCaptureFixture
) -> None:
    assert planned("seed=0,1,2,3", seen=1).gpus == (A._replace(memory_bytes=None),)
    assert not caplog.messages
    plan = planned("seed=0,1,2,3", seen=0)
    assert (plan.workers, plan.threads, plan.gpus) == (4, 4, ())
    (said,) = caplog.messages
    assert said.startswith("training on the CPU: TensorFlow does not see 2 GPUs (NVIDIA T4)")


def test_nobody_is_asked_where_there_is_no_gpu() -> None:
    assert sharing.seen_by_tensorflow([], lambda: pytest.fail("asked")) == []


def test_portable_sweep_stays_on_the_cpu(planned: Callable[..., Plan]) -> None:
    assert planned("seed=0,1", "training.determinism=portable").gpus == ()


def test_sweep_that_goes_on_keeps_its_workers(planned: Callable[..., Plan]) -> None:
    assert cores.with_threads(planned("seed=0,1,2"), [16, 16, 16]).workers == 2


def test_jobs_are_spread_evenly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Any] = []

    class Started:
        def __init__(self, task: Any, run: Any, gpu: Any, *, output: Path) -> None:
            given.append((self, gpu.name if gpu else None))

    monkeypatch.setattr(local, "Worker", Started)
    executor = local.LocalExecutor(4, (A, B))
    run: Any = None
    for _ in range(4):
        executor.submit(run, tmp_path)
    assert [name for _, name in given] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    for ended in (1, 3):
        del executor._stops[given[ended][0]], executor._gpu_of[given[ended][0]]
    executor.submit(run, tmp_path)
    assert given[-1][1] == "GPU-b"
    plain = local.LocalExecutor(1)
    plain.submit(run, tmp_path)
    assert given[-1][1] is None


def test_networks_are_tried_on_the_gpus_of_the_workers(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("model=linear,mlp,lenet5,cnn")
    given: list[str] = []
    monkeypatch.setattr(preflight, "Worker", lambda *arguments: given.append(arguments[-1].name))
    monkeypatch.setattr(processes, "answer", lambda worker: preflight.Built(1))
    statuses: Any = [SimpleNamespace(job=job) for job in plan.jobs]
    preflight.check(plan, statuses)
    assert given == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]


# What a process is set to.


class FakeTensorFlow:
    """`tf.config` of a machine with GPUs: notes what is asked of it."""

    def __init__(self, patch: pytest.MonkeyPatch, *, models: tuple[str, ...]) -> None:
        import tensorflow as tf

        self.said: list[Any] = []
        listed = [SimpleNamespace(name=f"/physical_device:GPU:{n}", model=model) for n, model in enumerate(models)]
        patch.setattr(tf.config, "list_physical_devices", lambda kind: listed)
        patch.setattr(tf.config, "set_visible_devices", lambda gpu, kind: self.said.append(("show", gpu.name)))
        patch.setattr(
            tf.config, "set_logical_device_configuration",
            lambda gpu, limits: self.said.append(("limit", gpu.name, [limit.memory_limit for limit in limits])),
        )  # fmt: skip
        experimental = tf.config.experimental
        patch.setattr(experimental, "set_memory_growth", lambda gpu, grow: self.said.append(("grow", gpu.name, grow)))
        patch.setattr(experimental, "get_device_details", lambda gpu: {"device_name": gpu.model})
        patch.setattr(gpus, "may_exist", lambda: True)


FIRST = "/physical_device:GPU:0"


def test_single_run_takes_the_first_gpu_and_lets_memory_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorFlow(monkeypatch, models=("NVIDIA T4", "NVIDIA H100"))
    devices.prepare()
    assert fake.said == [("show", FIRST), ("grow", FIRST, True)]
    assert devices.trains_on_gpu() == "NVIDIA T4"
    assert devices.facts() == {"gpu": "NVIDIA T4"}
    assert devices.describe(4) == "4 threads, NVIDIA T4"


def test_job_sees_its_gpu_alone_and_keeps_to_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorFlow(monkeypatch, models=("NVIDIA T4",))
    monkeypatch.setenv(gpus.VARIABLE, "0,1")
    devices.take(GPU("GPU-b", "NVIDIA T4", 3 * GIB))
    devices.prepare()
    assert os.environ[gpus.VARIABLE] == "GPU-b"
    assert fake.said == [("show", FIRST), ("limit", FIRST, [3 * 1024])]


def test_gpu_that_tensorflow_cannot_use_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeTensorFlow(monkeypatch, models=())
    devices.prepare()
    (said,) = caplog.messages
    assert said.startswith("training on the CPU: there is a GPU, but TensorFlow sees none")
    assert fake.said == []
    assert devices.trains_on_gpu() is None
    assert devices.facts() == {"gpu": None}


def test_without_gpus_tensorflow_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeTensorFlow(monkeypatch, models=("NVIDIA T4",))
    monkeypatch.setattr(gpus, "may_exist", lambda: False)
    assert devices.facts() == {}
    devices.prepare()
    assert (fake.said, devices.facts(), devices.describe(1)) == ([], {"gpu": None}, "1 thread")


def test_gpu_of_a_run_stands_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTensorFlow(monkeypatch, models=("NVIDIA T4",))
    config = compose(*SMALL)
    assert "gpu" not in gather_facts(config, "d" * 64)
    devices.prepare()
    assert gather_facts(config, "d" * 64)["gpu"] == "NVIDIA T4"


# In a worker: TensorFlow has been imported before the fork, but CUDA not been touched.

CUDA = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int cuInit(unsigned flags) {
    FILE *log = fopen("LOG", "a");
    const char *shown = getenv("CUDA_VISIBLE_DEVICES");
    fprintf(log, "%d %s\\n", getpid(), shown ? shown : "all");
    fclose(log);
    return 100;
}
"""


def list_devices(planner: Planner, gpu: GPU) -> None:
    devices.take(gpu)
    planner.tell((os.getpid(), devices.count_seen()))


@pytest.mark.skipif(not shutil.which("gcc"), reason="a CUDA driver that notes when it is initialised is compiled")
def test_cuda_is_initialised_in_the_worker_and_shows_its_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA does not survive a fork, and reads the variable when it is initialised: neither import nor server may."""
    log, source = tmp_path / "log", tmp_path / "cuda.c"
    source.write_text(CUDA.replace("LOG", str(log)))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with processes.none_left():
        processes.start_server()
        workers = [Worker(list_devices, gpu) for gpu in (A, B)]
        told = [processes.answer(worker) for worker in workers]
        noted = log.read_text().splitlines()
        assert sharing.seen_by_tensorflow([A, B]) == []  # of this driver, asked in the way of a sweep
    assert [seen for _, seen in told] == [0, 0]
    assert sorted(noted) == sorted([f"{told[0][0]} GPU-a", f"{told[1][0]} GPU-b"])


# What TensorFlow refuses there.


def refuse(error: Exception) -> Any:
    """A layer with a gradient that raises, as those of operations without a deterministic form do."""
    import keras
    import tensorflow as tf

    class Refused(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            @tf.custom_gradient
            def same(x: Any) -> Any:
                return tf.identity(x), lambda gradient: raised(gradient)

            def raised(gradient: Any) -> Any:
                del gradient
                raise error

            return same(inputs)

    return Refused(name="upsampled")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], RunConfig]:
    """A config of a network with a layer that a step refuses."""

    def make(error: Exception) -> RunConfig:
        import keras

        made = compose(*SMALL)

        def build(shape: tuple[int, int, int], classes: int, regularization: Any) -> Any:
            del regularization
            inputs = keras.Input(shape)
            hidden = refuse(error)(keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))
            return keras.Model(inputs, keras.layers.Softmax()(hidden))

        monkeypatch.setattr(type(made.model), "build", lambda self, *arguments: build(*arguments))
        return made

    return make


def test_layer_without_a_deterministic_form_is_named_before_training(config: Callable[[Exception], RunConfig]) -> None:
    import tensorflow as tf

    text = (
        "Graph execution error: A deterministic GPU implementation of ResizeNearestNeighborGrad is not currently "
        "available. [[node gradient_tape/functional_1/upsampled/resize/ResizeNearestNeighborGrad]]"
    )
    with pytest.raises(InputError) as caught:
        trial.try_step(config(tf.errors.UnimplementedError(None, None, text)), (28, 28, 1), 10)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("model: layer upsampled: ")
    assert "deterministic GPU implementation of ResizeNearestNeighborGrad" in mistake
    assert mistake.endswith("(choose another layer, or train on the CPU: CUDA_VISIBLE_DEVICES=-1)")


def test_batch_that_does_not_fit_into_the_gpu_is_told_before_training(
    config: Callable[[Exception], RunConfig],
) -> None:
    import tensorflow as tf

    made = config(tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"))
    with pytest.raises(InputError, match=r"training.batch_size: \d+ images do not fit into the memory of the GPU"):
        trial.try_step(made, (28, 28, 1), 10)


def test_network_that_can_be_trained_passes() -> None:
    trial.try_step(compose(*SMALL), (28, 28, 1), 10)


# Causes.


def test_gpus_that_were_trained_on_are_compared_where_both_are_known() -> None:
    machine: dict[str, Any] = {"gpus": ["H100", "A100"]}
    (cause,) = find_causes(facts(**machine, gpu="H100"), facts(**machine) | {"gpu": None})
    assert (cause.text, cause.likely) == ("GPU: H100 then, none now", True)
    (cause,) = find_causes(facts(**machine, gpu="H100"), facts(**machine, gpu="A100"))
    assert (cause.text, cause.likely) == ("GPU: H100 then, A100 now", True)
    assert find_causes(facts(gpus=["H100"], gpu="H100"), facts(gpus=["H100"] * 8, gpu="H100")) == []
    assert find_causes(facts(gpus=["H100"]), facts(gpus=["H100"], gpu="H100")) == []  # of an older version: not known


def test_which_of_several_equal_gpus_it_was_takes_no_part() -> None:
    machine: dict[str, Any] = {"gpus": ["H100", "H100"]}
    then = facts(**machine, variables__CUDA_VISIBLE_DEVICES="GPU-a")
    for now in (facts(**machine), facts(**machine, variables__CUDA_VISIBLE_DEVICES="GPU-b")):
        for extra in ({}, {"gpu": "H100"}):
            (cause,) = find_causes(then | extra, now | extra)
            assert not cause.likely
    (cause,) = find_causes(then, facts(**machine, variables__CUDA_VISIBLE_DEVICES="-1"))
    assert cause.likely
