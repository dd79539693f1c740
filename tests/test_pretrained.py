"""`model=pretrained`: weights from a file, parts that stay as they are, two phases; a small backbone, no network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from conftest import SMALL
from experiments.config import RunConfig, compose, load_config
from experiments.errors import InputError
from experiments.ingredients import downloads
from experiments.ingredients.pretrained import BACKBONES, FEATURES
from experiments.results import files
from experiments.results.records import Record

MINE = (
    "model=pretrained", "model.backbone=mobilenetv3-small", "model.image_size=32", "optimizer.learning_rate=0.001",
    "tracking=none",
)  # fmt: skip


def config(*overrides: str) -> RunConfig:
    return compose(*SMALL, *MINE, *overrides)


def refused(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        config(*overrides).model.resolve()
    (line,) = caught.value.mistakes
    return line


def test_random_weights_are_never_frozen() -> None:
    assert config("model.weights=null", "model.freeze_epochs=0").model.resolve().weights_digest is None
    for frozen in ("model.freeze_epochs=1", "model.freeze=all"):
        assert "weights must be imagenet or a file where layers are frozen" in refused("model.weights=null", frozen)
    assert "freeze_epochs must be 0 where freeze is all" in refused("model.freeze=all")


def test_digest_of_the_weights_is_written_down_and_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.weights.h5"
    file.write_bytes(b"weights")
    first = config(f"model.weights={file}").model.resolve()
    assert first.weights_digest == hashlib.sha256(b"weights").hexdigest()
    assert first.resolve() == first
    file.write_bytes(b"others!")
    with pytest.raises(InputError, match=r"holds other weights than it did \(SHA-256 .{12}… then, .{12}… now\)"):
        first.resolve()


def test_file_of_weights_must_be_there_and_be_one() -> None:
    assert (
        refused("model.weights=/nowhere/a.h5") == "model.weights: no such file, received /nowhere/a.h5 (/nowhere/a.h5)"
    )
    assert refused("model.weights=mine.keras") == (
        "model.weights: must be null, imagenet or a file .h5, received mine.keras"
    )


def test_imagenet_is_found_verified_and_downloaded_only_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(downloads, "_probe", lambda url: asked.append(url) or "no network")  # type: ignore[func-returns-value]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("EXPERIMENTS_DATA", raising=False)
    backbone = BACKBONES["mobilenetv3-small"]
    assert f"{backbone.file}: not found as {tmp_path}/models/{backbone.file}, and not downloaded" in refused()
    assert asked == [f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/{backbone.file}"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / backbone.file).write_bytes(b"half")
    assert f"is damaged: its MD5 must be {backbone.md5}" in refused()
    assert len(asked) == 1


@pytest.mark.usefixtures("tensorflow")
def test_backbones_are_those_of_keras_and_so_are_their_weights() -> None:
    from keras.src.applications import efficientnet_v2, mobilenet_v3, resnet

    assert BACKBONES["efficientnetv2-b0"].md5 == efficientnet_v2.WEIGHTS_HASHES["b0"][1]
    assert BACKBONES["mobilenetv3-small"].md5 == mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"][1]
    assert BACKBONES["resnet50v2"].md5 == resnet.WEIGHTS_HASHES["resnet50v2"][1]
    origins = (efficientnet_v2.BASE_WEIGHTS_PATH, mobilenet_v3.BASE_WEIGHT_PATH, resnet.BASE_WEIGHTS_PATH)
    assert set(BACKBONES) == {"mobilenetv3-small", *LARGE}
    folders = [origin.rstrip("/").rpartition("/")[2] for origin in origins]
    assert folders == [backbone.folder for backbone in BACKBONES.values()]


LARGE = ("efficientnetv2-b0", "resnet50v2")  # half a minute each


@pytest.mark.slow
@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    "backbone", ["mobilenetv3-small", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in LARGE)]
)
def test_backbone_takes_grey_pixels_and_is_saved_and_opened(backbone: str, tmp_path: Path) -> None:
    from experiments.ingredients.normalisation import as_keras
    from experiments.results.saved_model import open_model

    made = config("model.weights=null", "model.freeze_epochs=0", f"model.backbone={backbone}", "model.units=[7]")
    model = made.model.build((28, 28, 1), 10, made.regularization)
    assert model.output_shape == (None, 10)
    as_keras(model).save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(
        open_model(tmp_path / "model.keras").predict(images, verbose=0), model.predict(images, verbose=0)
    )
    with pytest.raises(InputError, match=r"at least 32 pixels a side, received 28×28; model.image_size=96 enlarges"):
        compose(*SMALL, *MINE, "model.image_size=null").model.build((28, 28, 1), 10, made.regularization)


class Runs(NamedTuple):
    """The same training at one go, and paused after its first epoch, with the weights that it began with."""

    whole: Record
    paused_weights: dict[str, np.ndarray]
    resumed: Record
    first: list[np.ndarray]


def few_layers(include_top: bool, weights: None, input_tensor: Any, include_preprocessing: bool) -> Any:
    """A backbone of the kinds of layers that the real ones have, called as they are."""
    import keras

    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(input_tensor)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x)


@pytest.fixture(
    scope="module",
    params=["few layers", pytest.param("mobilenetv3-small", marks=[pytest.mark.slow, pytest.mark.exhaustive])],
)
def runs(request: pytest.FixtureRequest, tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of a backbone of few layers, which takes seconds to train, or of a real one, which takes a minute."""
    import keras

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "few layers":
            patch.setattr(keras.applications, BACKBONES["mobilenetv3-small"].factory, few_layers)
        return make_runs(tmp_path_factory.mktemp("pretrained"))


def make_runs(folder: Path) -> Runs:
    import keras

    from experiments.runner import run_experiment

    random = config("model.weights=null", "model.freeze_epochs=0")
    keras.utils.set_random_seed(77)
    model = random.model.build((28, 28, 1), 10, random.regularization)
    weights = folder / "mine.weights.h5"
    backbone = keras.Model(model.input, model.get_layer(FEATURES).input)
    backbone.save_weights(weights)
    chosen = config(f"model.weights={weights}", "model.freeze_epochs=1", "training.epochs=2")
    whole = run_experiment(chosen, folder / "whole")
    paused = run_experiment(chosen, folder / "resumed", until_epoch=1)
    with np.load(paused.directory / files.CHECKPOINT / "epoch-00001.npz") as arrays:
        kept = dict(arrays)
    resumed = run_experiment(load_config(folder / "resumed" / files.CONFIG), folder / "resumed")
    return Runs(whole, kept, resumed, backbone.get_weights())


def test_frozen_backbone_keeps_its_weights_and_the_head_learns(runs: Runs) -> None:
    for number, before in enumerate(runs.first):
        np.testing.assert_array_equal(runs.paused_weights[f"weights/{number:05d}"], before)
    assert sum(name.startswith("weights/") for name in runs.paused_weights) == len(runs.first) + 2
    digests = [row.weights_digest for row in runs.whole.rows]
    assert len(set(digests)) == 2


def test_run_that_was_paused_between_its_phases_ends_in_the_same_bits(runs: Runs) -> None:
    assert [row.weights_digest for row in runs.resumed.rows] == [row.weights_digest for row in runs.whole.rows]
    assert runs.resumed.predictions_digest == runs.whole.predictions_digest
    assert runs.whole.state == "finished"


def test_saved_network_predicts_what_the_run_did(runs: Runs) -> None:
    from experiments.results.saved_model import open_model

    saved = load_config(runs.whole.directory / files.CONFIG)
    assert saved.model.weights_digest
    images = saved.dataset.load().test.images[:20]
    predicted = open_model(runs.whole.directory / files.MODEL).predict(images, verbose=0)
    np.testing.assert_allclose(predicted, runs.whole.predictions.test_probabilities[:20], atol=1e-5)


@pytest.mark.slow
def test_network_is_served_by_mlflow(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the model that a run logs: raw pixels in, and the probabilities that the run recorded out."""
    import mlflow
    from mlflow import MlflowClient

    from experiments.results.tracking_model import log_model

    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    mlflow.set_tracking_uri(address)
    client = MlflowClient(address)
    experiment = client.create_experiment("served", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment)
    log_model(client, run, runs.whole.directory / files.MODEL)
    (logged,) = client.get_run(run.info.run_id).outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    images = load_config(runs.whole.directory / files.CONFIG).dataset.load().test.images
    np.testing.assert_allclose(model.predict(images), runs.whole.predictions.test_probabilities, atol=1e-5)
