"""Runs of other people: whatever they hold, nothing of it is executed, and nothing outside is read or written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import commands
from conftest import SMALL, environment, train, write_record
from experiments.config import compose, load_config
from experiments.errors import InputError
from experiments.plain_yaml import read_yaml
from experiments.reproduce import reproduce
from experiments.results import files, records, saved_model, tracking

CONFIG = yaml.safe_load(compose(*SMALL, "model=linear", "tracking=none").to_yaml())


@pytest.fixture(autouse=True)
def mark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that every trap here would make; at the end it must not be there."""
    path = tmp_path_factory.mktemp("trap") / "sprung"
    yield path
    assert not path.exists()


@pytest.fixture
def stranger(home: Path) -> Path:
    """The directory of a finished run that somebody else has sent."""
    record = write_record(home / "outputs" / "theirs", state="finished")
    (record.directory / files.CONFIG).write_text(yaml.safe_dump(CONFIG))
    return record.directory


def repeat(run: Path) -> int:
    return reproduce(Namespace(run=str(run), check=False, stop_at_difference=False, tolerance=None, threads=None))


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run(["-m", "experiments.run", *arguments], env=environment(home), cwd=home)


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    (line,) = str(caught.value).splitlines()
    return line


# Configs.


def target(mark: Path) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {mark}"}


@pytest.mark.parametrize("where", ["", "model", "optimizer", "dataset", "training"])
def test_target_in_a_config_is_refused(where: str, stranger: Path, mark: Path) -> None:
    values = json.loads(json.dumps(CONFIG))
    (values[where] if where else values).update(target(mark))
    (stranger / files.CONFIG).write_text(yaml.safe_dump(values))
    key = f"{where}._target_" if where else "_target_"
    with pytest.raises(InputError, match=rf"{key}: a config names options, and calls nothing") as caught:
        repeat(stranger)
    one_line(caught)
    with pytest.raises(InputError, match=rf"{key}: no such key"):
        load_config(stranger / files.CONFIG)


def test_target_on_the_command_line_is_an_unknown_key(mark: Path) -> None:
    for override in ("optimizer={_target_: os.system}", "+optimizer._target_=os.system", "+_target_=os.system"):
        with pytest.raises(InputError, match=r"_target_|must be a mapping with a name") as caught:
            compose(override)
        one_line(caught)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("!!python/object/apply:os.system ['touch {mark}']", "could not determine a constructor"),
        ("seed: !!python/object/apply:os.system ['touch {mark}']", "could not determine a constructor"),
        ("seed: !!python/name:os.system", "could not determine a constructor"),
        ("a: &a [x, x, x]\nb: [*a, *a]", "repeats nothing by alias"),
        ("a: &a\n  <<: *a", "repeats nothing by alias"),
        ("[" * 200_000, "is at most 20 levels deep"),
        ("a: 2026-99-99", "is not plain YAML"),
        ("a: \x00", "is not plain YAML"),
        ("a: [", "is not plain YAML"),
    ],
    ids=["apply", "nested apply", "name", "alias", "merge", "deep", "date", "control character", "cut off"],
)
def test_yaml_that_is_more_than_values_is_refused(text: str, rule: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("{mark}", str(mark)))
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert rule in one_line(caught)
    assert len(one_line(caught)) < 400


def test_laughing_lists_do_not_fill_the_memory(stranger: Path) -> None:
    lines = ["a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    (stranger / files.CONFIG).write_text("\n".join(lines))
    for read in (lambda: load_config(stranger / files.CONFIG), lambda: records.load(stranger).config):
        with pytest.raises(InputError, match=r"repeats nothing by alias, received \*a"):
            read()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe\xfa")
    with pytest.raises(InputError, match="is not plain YAML"):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "trap",
    [
        {"hydra": {"callbacks": {"trap": "TARGET"}}},
        {"hydra": {"job_logging": {"version": 1, "handlers": {"h": {"()": "TARGET"}}}}},
        {"defaults": [{"hydra/callbacks": "trap"}]},
    ],
    ids=["callback", "logging", "defaults"],
)
def test_saved_config_cannot_reach_into_hydra(trap: dict[str, Any], stranger: Path, home: Path, mark: Path) -> None:
    text = yaml.safe_dump(CONFIG | trap).replace("TARGET", json.dumps(target(mark)))
    (stranger / files.CONFIG).write_text(text.replace("'{", "{").replace("}'", "}"))
    group = stranger / "hydra" / "callbacks"
    group.mkdir(parents=True)
    (group / "trap.yaml").write_text(yaml.safe_dump({"trap": target(mark)}))
    ended = command(home, "--config-path", str(stranger), "--config-name", "config")
    assert ended.returncode == 2
    assert f"{next(iter(trap))}: no such key" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert [path.name for path in (home / "outputs").iterdir()] == ["theirs"]


def test_hydras_own_repetition_is_refused(home: Path) -> None:
    ended = command(home, "--experimental-rerun", "config.pickle")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "would open a pickle" in ended.stderr


# Arrays.


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def pickled(mark: Path, *names: str) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.array([Trap(mark)], dtype=object) for name in names})  # type: ignore[arg-type]
    return buffer.getvalue()


def test_the_trap_is_a_real_one(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "a.npz").write_bytes(pickled(mark, "a"))
    with np.load(tmp_path / "a.npz", allow_pickle=True) as arrays:
        arrays["a"]
    assert mark.exists()
    mark.unlink()


def test_pickled_predictions_are_refused(stranger: Path, mark: Path) -> None:
    (stranger / files.PREDICTIONS).write_bytes(pickled(mark, *records.Predictions.__annotations__))
    with pytest.raises(InputError, match=r"predictions.npz: cannot be read as predictions \(.*object arrays"):
        records.load(stranger).predictions  # noqa: B018


def test_pickled_images_are_refused(home: Path, mark: Path) -> None:
    path = home / "mine.npz"
    path.write_bytes(pickled(mark, "x_train", "y_train", "x_test", "y_test"))
    with pytest.raises(
        InputError, match=r"must be readable as plain arrays, received x_train of type object; object arrays"
    ) as caught:
        compose("dataset=files", f"dataset.path={path}").dataset.load()
    one_line(caught)


def test_pickled_checkpoint_is_refused(
    tensorflow: Any, tmp_path: Path, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    config = compose(*SMALL, "model=linear", "training.epochs=2")
    data = config.dataset.load()
    train(config, data, checkpoints=tmp_path, stop_after=1)
    with np.load(tmp_path / "epoch-00001.npz") as arrays:
        content = pickled(mark, *arrays.files)
    (tmp_path / "epoch-00001.npz").write_bytes(content)
    (tmp_path / "epoch-00001.json").write_text(json.dumps({"digest": hashlib.sha256(content).hexdigest()}))
    assert Checkpoints(tmp_path).restore(loop.build(config, data).model).rows == []
    (message,) = [message for message in caplog.messages if "cannot be used" in message]
    assert "object arrays cannot be loaded" in message


def test_checkpoint_of_another_network_is_refused(tensorflow: Any, tmp_path: Path) -> None:
    from experiments.training import loop
    from experiments.training.checkpoint import Checkpoints

    small, large = (compose(*SMALL, "model=mlp", f"model.units=[{units}]") for units in (4, 8))
    data = small.dataset.load()
    train(small, data, checkpoints=tmp_path, stop_after=1)
    trainer = loop.build(large, data)
    before = trainer.weights_digest()
    assert Checkpoints(tmp_path).restore(trainer.model).rows == []
    assert trainer.weights_digest() == before


# Models.


@pytest.fixture
def model_file(tensorflow: Any, tmp_path: Path) -> Path:
    """A model as a run saves it."""
    from experiments.training import loop

    config = compose(*SMALL, "model=linear")
    path = tmp_path / "model.keras"
    loop.build(config, config.dataset.load()).save_model(path)
    return path


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the layers in a `model.keras`."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    change(config["config"]["layers"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, data)


def test_own_models_are_opened(model_file: Path) -> None:
    assert saved_model.open_model(model_file).count_params() == 7850


@pytest.mark.parametrize("model", ["cnn", "lenet5", "deep_cnn", "resnet", "mlp", "linear", "layers"])
def test_every_model_of_conf_can_be_opened_again(model: str, tensorflow: Any, tmp_path: Path) -> None:
    from experiments.ingredients.normalisation import as_keras

    config = compose(*SMALL, f"model={model}", "regularization=full")
    built = config.model.build((28, 28, 1), 10, config.regularization)
    as_keras(built).save(tmp_path / "model.keras")
    assert saved_model.open_model(tmp_path / "model.keras").count_params() == built.count_params()


def test_lambda_layer_is_refused(tensorflow: Any, tmp_path: Path, mark: Path) -> None:
    import keras

    path = tmp_path / "model.keras"
    pixels = keras.Input((28, 28, 1))
    keras.Model(pixels, keras.layers.Lambda(lambda x: x)(pixels)).save(path)
    with pytest.raises(InputError, match=r"holds keras.layers.Lambda, which no config can name; it is not opened"):
        saved_model.open_model(path)


@pytest.mark.parametrize(
    "piece",
    [
        {"module": "os", "class_name": "system", "config": {}},
        {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/somewhere"}},
        {"module": None, "class_name": "__lambda__", "config": {"value": "4w=="}},
        {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "somebody>Dense"},
    ],
    ids=lambda piece: str(piece["registered_name"] if "registered_name" in piece else piece["class_name"]),
)
def test_piece_that_no_config_can_name_is_refused(piece: dict[str, Any], model_file: Path) -> None:
    rewrite(model_file, lambda layers: layers[1]["config"].update(hidden=[piece]))
    with pytest.raises(InputError, match=r"which no config can name; it is not opened") as caught:
        saved_model.open_model(model_file)
    one_line(caught)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"])
def test_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(InputError, match="must be readable as a Keras model, received") as caught:
        saved_model.open_model(tmp_path / "model.keras")
    one_line(caught)


def test_pipe_in_the_place_of_a_model_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.keras")
    with pytest.raises(InputError, match="must be a regular file, received a pipe"):
        saved_model.open_model(tmp_path / "model.keras")


def test_model_larger_than_its_weights_is_not_built(model_file: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(model_file, lambda layers: layers[-1]["config"].update(units=10**9))
    with pytest.raises(InputError, match=r"has 785,000,000,000 parameters, and \d+ kB of weights") as caught:
        saved_model.open_model(model_file)
    one_line(caught)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_model_whose_layers_give_out_more_than_the_memory_holds_is_not_built(model_file: Path) -> None:
    pixels: dict[str, Any] = {"batch_shape": [None, 10**7, 10**7, 1]}
    rewrite(model_file, lambda layers: layers[0]["config"].update(pixels))
    with pytest.raises(InputError) as caught:
        saved_model.open_model(model_file)
    one_line(caught)


def repack(path: Path, content: dict[str, bytes]) -> None:
    """Changes members of a `model.keras`; empty: leaves them out."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (held | content).items():
            if data:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"assets/vocabulary": b"x"}, "holds beside"),
        ({"model.weights.h5": b""}, "lacks"),
        ({"config.json": b"[" * 5_000_000}, "a description of more than"),
        ({"config.json": b"[" * 50_000 + b"]" * 50_000}, "at most 30 levels"),
        ({"config.json": b"null"}, "must be readable as a Keras model"),
        ({"config.json": b'{"class_name": ["Dense"], "module": {}}'}, "which no config can name"),
        ({"model.weights.h5": b"no HDF5" * 10_000}, "must be readable as a Keras model"),
    ],
    ids=["assets", "no weights", "long", "deep", "nothing", "lists for names", "no HDF5"],
)
def test_archive_that_keras_has_not_written_is_refused(content: dict[str, bytes], told: str, model_file: Path) -> None:
    repack(model_file, content)
    with pytest.raises(InputError, match=told) as caught:
        saved_model.open_model(model_file)
    assert len(one_line(caught)) < 500


def replace_weights(path: Path, change: Callable[[Any], None]) -> None:
    """Changes what stands in the place of the classifier's kernel."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        buffer = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(buffer, "r+") as file:
        variables = file["layers/dense/vars"]
        del variables["0"]
        change(variables)
    repack(path, {"model.weights.h5": buffer.getvalue()})


def link_outside(variables: Any) -> None:
    import h5py

    variables["0"] = h5py.ExternalLink("/etc/passwd", "/x")


def read_outside(variables: Any) -> None:
    variables.create_dataset("0", (784, 10), "f4", external=[("/etc/passwd", 0, 31360)])


def grow(variables: Any) -> None:
    variables.create_dataset("0", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


@pytest.mark.parametrize("change", [link_outside, read_outside, grow])
def test_weights_that_lie_elsewhere_or_nowhere_are_refused(change: Callable[[Any], None], model_file: Path) -> None:
    replace_weights(model_file, change)
    with pytest.raises(InputError, match="must be readable as a Keras model, received") as caught:
        saved_model.open_model(model_file)
    assert len(one_line(caught)) < 500


def test_mirroring_a_strangers_model_says_why_not(stranger: Path, model_file: Path, home: Path) -> None:
    rewrite(model_file, lambda layers: layers[1].update(class_name="Lambda", module="keras.layers"))
    model_file.rename(stranger / files.MODEL)
    config = compose(*SMALL, "model=linear", "tracking.log_model=true")
    with pytest.raises(tracking.TrackingError, match=r"holds keras.layers.Lambda, which no config can name") as caught:
        tracking.synchronise(records.load(stranger), config, home)
    assert len(str(caught.value).splitlines()) == 1


# Paths.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../elsewhere"),
        ("name", "/etc/elsewhere"),
        ("name", "a/../../b"),
        ("name", ".."),
        ("name", ".hidden"),
        ("name", "a\nb"),
        ("sweep", "../other"),
        ("reproduces", "../../../root"),
        ("run_key", "../../locks/x"),
    ],
)
def test_path_in_a_record_is_refused(key: str, value: str, stranger: Path) -> None:
    path = stranger / files.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    for use in (records.load, repeat):
        with pytest.raises(
            InputError, match=rf"record.json: is damaged or not a record of a run \(see {key}\)"
        ) as caught:
            use(stranger)
        one_line(caught)


def test_path_as_an_mlflow_id_is_refused(stranger: Path) -> None:
    path = stranger / files.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mlflow": {"run_id": "../../x"}}))
    with pytest.raises(InputError, match=r"see mlflow.run_id"):
        records.load(stranger)


@pytest.mark.parametrize("name", [files.PREDICTIONS, files.LOG, files.CHECKPOINT, "figures/loss.png"])
def test_link_that_leads_out_of_a_run_is_refused(name: str, stranger: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not theirs")
    place = stranger / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(secret)
    with pytest.raises(InputError, match=rf"{name}: leads out of the run directory") as caught:
        records.load(stranger)
    one_line(caught)
    place.unlink()
    place.symlink_to(stranger / files.CONFIG)  # within it is its own affair
    assert records.load(stranger).name == "theirs"


def test_link_is_seen_below_more_folders_than_python_can_call_functions(stranger: Path, tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    deepest = stranger / "/".join("d" * depth)
    subprocess.run(["mkdir", "-p", str(deepest)], check=True)
    records.load(stranger)
    (deepest / "x").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of the run directory"):
        records.load(stranger)
    (deepest / "x").unlink()
    subprocess.run(["rm", "-r", str(stranger / "d")], check=True)  # what removes the folders of tests would call itself


def test_linked_run_of_a_sweep_is_whole(stranger: Path, home: Path) -> None:
    (home / "multirun" / "some").mkdir(parents=True)
    (home / "multirun" / "some" / "0").symlink_to(stranger)
    assert records.load(home / "multirun" / "some" / "0").name == "theirs"
