"""Inputs made from a seed, each answered by this package in this process and judged: `python -m fuzz KIND FIRST COUNT`.

The last line on standard output is the list of faults as JSON. What hangs ends the process, with where it was on
standard error; the case under way stands in the last line on standard output.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

import mutations
from experiments.errors import ExperimentsError
from experiments.ingredients.files import Files
from experiments.screen import complain
from synthetic_runs import probabilities_of, write_run

THREAD_SECONDS = 5.0  # in which a thread that was told to end does
CPU_SECONDS, HANG_SECONDS = 10.0, 60.0  # the latter by the clock, on a machine that has much else to do
MEMORY_BYTES = 10**9  # more than before
LONGEST_LINE = 1010  # characters of a message
MOST_LINES = 60
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FIXTURE = Path(__file__).parent / "fixtures" / "format_1"


class Began(BaseException):
    """A run or a sweep would begin here: what was given is good."""


class Answer(NamedTuple):
    """What an input came to: the exit code, and what was printed."""

    code: int
    out: str
    err: str


def begin(*_: Any, **__: Any) -> Any:
    raise Began


# What is given.


def archive(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A data set in an `.npz`."""
    path = folder / "data.npz"
    data = np.random.default_rng(0)
    shape = chance.choice(((60, 8, 8), (60, 4, 4, 3)))
    arrays = {"x_train": data.integers(0, 256, shape, dtype=np.uint8), "y_train": np.arange(60) % 5}
    arrays |= {"x_test": data.integers(0, 256, (20, *shape[1:]), dtype=np.uint8), "y_test": np.arange(20) % 5}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    mutations.mangle_file(path, chance)
    options = {"scale": chance.choice(("auto", "auto", "unit", "byte"))}
    return lambda: dataset(path, options).load(), f"{path.name} {options}"


def pictures(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A folder of pictures."""
    root = folder / "pictures"
    for part in chance.choice((("train", "test"), ("",))):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for number in range(6):
                plain = mutations.encode(Image.new("L", (8, 8), chance.randrange(256)), "PNG"), ".png"
                data, suffix = mutations.draw_picture(chance) if chance.random() < 0.05 else plain
                (root / part / name / f"{number}{suffix}").write_bytes(data)
    mutations.mangle_tree(root, chance)
    options = {
        "bad_images": chance.choice(("refuse", "skip")), "image_size": chance.choice((None, 4, [4, 6])),
        "channels": chance.choice((None, 1, 3)), "fit": chance.choice(("crop", "pad", "stretch")),
    }  # fmt: skip
    return lambda: dataset(root, options).load(), str(options)


def configs(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A saved config, read as the library does."""
    from experiments.config import load_config

    path = folder / "config.yaml"
    path.write_bytes(chance.choice(CONFIGS))
    mutations.mangle_file(path, chance)
    return lambda: load_config(path).dataset.resolve(), ""


def overrides(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A command line of `run`, up to where it would begin to train."""
    given = mutations.draw_overrides(KEYS, OPTIONS, chance)
    if chance.random() < 0.3:
        given = ["-m", *given]
    return lambda: command("run", *given), repr(given)[:500]


def runs(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A sweep of two runs, one to three files of which are damaged, and a command about it."""
    shutil.copytree(SWEEP, folder / "multirun" / SWEEP.name, symlinks=True)
    sweep = folder / "multirun" / SWEEP.name
    damaged = chance.sample(sorted(path for path in sweep.rglob("*") if path.is_file()), chance.choice((1, 1, 2, 3)))
    for path in damaged:
        mutations.mangle_file(path, chance)
    what = str([path.relative_to(sweep).as_posix() for path in damaged])
    run, number = sweep / "0", chance.random()
    if number < 0.35:
        return lambda: command("compare", str(chance.choice((sweep, run))), "--json"), f"compare --json {what}"
    if number < 0.6:
        return lambda: command("reproduce", str(run), "--check"), f"reproduce --check {what}"
    if number < 0.75:
        return lambda: command("run", f"resume={run}"), f"resume {what}"
    if number < 0.8:
        return lambda: command("run", "--config-path", str(run), "--config-name", "config"), f"--config-path {what}"
    if number < 0.83:
        return lambda: command("run", "-m", *PLAN, f"sweep.title={sweep.name}"), f"sweep {what}"
    if number < 0.85:
        return lambda: command("figures", str(run)), f"figures {what}"
    if number < 0.87:
        return lambda: command("compare", str(sweep)), f"compare {what}"
    return lambda: look(run), f"library {what}"


def look(run: Path) -> None:
    """Reads all that a run directory holds."""
    from experiments.results import records
    from experiments.training.checkpoint import Checkpoints

    record = records.load(run)
    told = [record.rows, record.config, record.environment, record.verdict, Checkpoints(run / "checkpoint").rows()]
    told.append(record.predictions)


def models(chance: random.Random, folder: Path) -> tuple[Callable[[], Any], str]:
    """A saved model, its description or its weights damaged; TensorFlow starts for the first."""
    from experiments.results.saved_model import open_model

    if not MODEL:
        MODEL.append(saved_model(folder / "tmp"))
    path = folder / "model.keras"
    path.write_bytes(MODEL[0])
    if chance.random() < 0.2:
        mutations.mangle_file(path, chance)
    else:
        path.write_bytes(mutations.mangle_model(MODEL[0], chance))
    return lambda: open_model(path), ""


def saved_model(folder: Path) -> bytes:
    from experiments.config import compose
    from experiments.ingredients.normalisation import as_keras
    from experiments.training import runtime

    config = compose("model=cnn", "model.filters=[2]", "training.threads=1")
    with runtime.quiet():
        runtime.prepare(config.training)
        as_keras(config.model.build((8, 8, 1), 10, config.regularization)).save(folder / "model.keras")
    data = (folder / "model.keras").read_bytes()
    (folder / "model.keras").unlink()
    return data


KINDS = {
    "archives": archive, "pictures": pictures, "configs": configs, "overrides": overrides, "runs": runs,
    "models": models,
}  # fmt: skip

# What it is made of.

KEYS: list[str] = []
OPTIONS: dict[str, list[str]] = {}
CONFIGS: list[bytes] = []
MODEL: list[bytes] = []
PLAN = ("seed=0,1", "model=linear", "dataset=digits", "training.epochs=1")
SWEEP = Path()


def prepare(folder: Path) -> None:
    """Fills what cases are made of, once, in `folder`."""
    global SWEEP
    from experiments import runner
    from experiments.conf import CONF
    from experiments.config import compose, flatten
    from experiments.sweeps import launch

    runner.run_experiment = begin
    launch._carry_out = launch._show = begin
    config = compose("dataset=digits", "model=linear", "training.epochs=1").with_threads(1)
    KEYS.extend(flatten(config.model_dump(mode="json")))
    OPTIONS.update(
        {group.name: [path.stem for path in group.glob("*.yaml")] for group in CONF.iterdir() if group.is_dir()}
    )
    CONFIGS.extend(compose(*PLAN[1:], f"model={model}").to_yaml().encode() for model in ("linear", "cnn", "layers"))
    SWEEP = folder / "20261122-081530-seed-abcd"
    labels = np.arange(40) % 10
    for seed in range(2):
        right = np.random.default_rng(seed).random(40) < 0.8
        values = probabilities_of(labels, right, np.full(40, 0.9))
        from experiments.results.records import Predictions

        directory = SWEEP / str(seed)
        made = config.model_copy(update={"seed": seed})
        fields = made.model_dump(mode="json")
        write_run(
            directory, Predictions(values, labels, np.arange(40, dtype=np.uint64), values, labels),
            config=fields, sweep=SWEEP.name, varied={"seed": seed},
        )  # fmt: skip
        old = FIXTURE / "multirun" / "20261125-222805-optimizer-seed-fbc4"
        shutil.copy(old / "0" / "environment.json", directory)
        (directory / "checkpoint").mkdir()
        (directory / "verdict.json").write_text('{"verdict": "identical", "format": 1}')
        write_checkpoint(directory / "checkpoint")
    for name in ("plan.json", "sweep.json"):
        shutil.copy(old / name, SWEEP)


def write_checkpoint(folder: Path) -> None:
    import hashlib

    rows = [{"epoch": 1, "train_loss": 1.0, "validation_cross_entropy": 1.0}]
    buffer = io.BytesIO()
    np.savez(buffer, rows=np.frombuffer(json.dumps(rows).encode(), np.uint8), **{"weights/00000": np.zeros((8, 8))})
    (folder / "epoch-00001.npz").write_bytes(buffer.getvalue())
    note = {"digest": hashlib.sha256(buffer.getvalue()).hexdigest()}
    (folder / "epoch-00001.json").write_text(json.dumps(note))


def dataset(path: Path, options: dict[str, Any]) -> Files:
    from experiments.config import compose, validate

    if not hasattr(dataset, "values"):
        dataset.values = compose("dataset=files", "dataset.path=/x").model_dump(mode="json")  # type: ignore[attr-defined]
    values = dataset.values  # type: ignore[attr-defined]
    return validate(values | {"dataset": values["dataset"] | {"path": str(path)} | options}).dataset  # type: ignore[return-value]


# How it is answered.


def command(name: str, *arguments: str) -> Any:
    """What `python -m experiments.<name>` does."""
    import importlib

    sys.argv = [name, *arguments]
    importlib.import_module(f"experiments.{name}").main()


def answer(do: Callable[[], Any]) -> Answer:
    """Does it, and catches all that it prints; a traceback is exit code 99."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    code = 0
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        logging.getLogger("experiments").handlers = []
        try:
            do()
        except Began:
            pass
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 98
        except ExperimentsError as error:
            code = 2
            complain(*str(error).splitlines())
        except BaseException:
            code = 99
            sys.stderr.write(traceback.format_exc())
    out, err = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in streams)  # type: ignore[attr-defined]
    return Answer(code, out, err)


def contents(folder: Path) -> dict[str, tuple[int, ...]]:
    """What lies in a folder, with sizes and times."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name.startswith("cache"):  # decoded pictures stay: the next attempt finds them by their content
            continue
        status = path.lstat()
        found[name] = (status.st_mode, 0 if path.is_dir() else status.st_size)
    return found


def faults(given: Answer, folder: Path, before: dict[str, Any]) -> Iterator[str]:
    """What is wrong with an answer."""
    text = given.out + given.err
    if given.code not in (0, 1, 2) or "Traceback" in text:
        yield f"exit code {given.code}"
    if given.code == 2 and not given.err.strip():
        yield "refused without a word"
    if "Warning" in text:
        yield "a library's warning"
    if COMMANDS.search(text):
        yield "commands to the terminal"
    lines = given.err.splitlines()
    if given.code == 2 and (len(lines) > MOST_LINES or max(map(len, lines), default=0) > LONGEST_LINE):
        yield f"{len(lines)} lines, the longest of {max(map(len, lines))} characters"
    after = contents(folder)
    if given.code == 2 and after != before:
        yield f"left {sorted(after.items() ^ before.items())[:5]}"
    if any(name.rpartition("/")[2] == mutations.TRAP for name in after):
        yield "executed what was given"
    if psutil.Process().children():
        yield "left a process"


def judge(kind: str, seed: int, folder: Path) -> list[str]:
    """One case; what is wrong with its answer."""
    folder.mkdir()
    (folder / "tmp").mkdir()
    os.chdir(folder)
    os.environ["EXPERIMENTS_HOME"] = str(folder)
    tempfile.tempdir = str(folder / "tmp")
    do, what = KINDS[kind](random.Random(f"{kind} {seed}"), folder)
    before, threads = contents(folder), threading.active_count()
    peak, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=sys.__stderr__)
    given = answer(do)
    faulthandler.cancel_dump_traceback_later()
    found = list(faults(given, folder, before))
    if (seconds := time.process_time() - started) > CPU_SECONDS:
        found.append(f"took {seconds:.1f} s")
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 > MEMORY_BYTES:
        found.append(f"took {grown // 1024} MB")
    patience = time.monotonic() + THREAD_SECONDS
    while threading.active_count() > threads and time.monotonic() < patience:
        time.sleep(0.01)
    if threading.active_count() > threads:
        found.append("left a thread")
    os.chdir("/")
    shutil.rmtree(folder)
    COUNTS[given.code] = COUNTS.get(given.code, 0) + 1
    told = f"{given.out[-1500:]}{given.err[-3000:]}"
    return [f"{kind} {seed}: {', '.join(found)}; {what}\n{told}"] if found else []


COUNTS: dict[int, int] = {}


def main(kind: str, first: int, count: int) -> None:
    """Judges the cases of a kind with the seeds from `first` on."""
    warnings.simplefilter("always")
    found: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["TMPDIR"] = place
        prepare(Path(place))
        for seed in range(first, first + count):
            sys.stdout.write(f"{kind} {seed}\n")
            sys.stdout.flush()
            found += judge(kind, seed, Path(place) / f"case-{seed}")
    tempfile.tempdir = None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.write(json.dumps({"faults": found, "codes": COUNTS, "seconds": usage.ru_utime + usage.ru_stime}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
