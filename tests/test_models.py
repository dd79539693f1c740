from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from experiments.errors import InputError
from experiments.ingredients.models import Model

CONF = Path(__file__).parents[1] / "conf" / "model"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "pretrained")  # see test_pretrained.py
ADAPTER = TypeAdapter(Model)
NONE = SimpleNamespace(dropout=0.0, l2=0.0)
BOTH = SimpleNamespace(dropout=0.25, l2=0.01)

pytestmark = pytest.mark.usefixtures("tensorflow")


def make(name: str, **changes):
    return ADAPTER.validate_python(yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


def build(name: str, shape=(28, 28, 1), regularization=NONE, **changes):
    return make(name, **changes).build(shape, 10, regularization)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_file_lists_exactly_the_fields_of_its_class(name: str):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert yaml.safe_load(text)["name"] == name
    assert set(yaml.safe_load(text)) == set(type(make(name)).model_fields)


def test_every_class_has_an_option_file():
    assert OPTIONS == ["cnn", "deep_cnn", "layers", "lenet5", "linear", "mlp", "resnet"]


PARAMETERS = {
    # Weights and biases of conv and dense layers; 4 a filter of batch normalisation.
    "linear": 784 * 10 + 10,
    "mlp": (784 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 10,
    "cnn": (9 + 1) * 32 + (9 * 32 + 1) * 64 + (5 * 5 * 64 + 1) * 10,
    "lenet5": (25 + 1) * 6 + (25 * 6 + 1) * 16 + (5 * 5 * 16 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10,
    "deep_cnn": (9 + 1) * 32 + (9 * 32 + 1) * 32 + (25 * 32 + 1) * 32 + 3 * 4 * 32
    + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 64 + (25 * 64 + 1) * 64 + 3 * 4 * 64
    + (16 * 64 + 1) * 128 + 4 * 128 + (128 + 1) * 10,
    "resnet": 9 * 16 + 4 * 16  # no biases; then three stages of one block, with projections to the last two
    + 2 * 9 * 16 * 16 + 2 * 4 * 16
    + 9 * 16 * 32 + 9 * 32 * 32 + 16 * 32 + 3 * 4 * 32
    + 9 * 32 * 64 + 9 * 64 * 64 + 32 * 64 + 3 * 4 * 64
    + (64 + 1) * 10,
    "layers": (25 + 1) * 24 + (9 * 24 + 1) * 32 + (5 * 5 * 32 + 1) * 256 + (256 + 1) * 10,
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_parameter_count_is_exact_and_the_one_in_the_header(name: str):
    assert build(name).count_params() == PARAMETERS[name]
    assert f"{PARAMETERS[name]:,} parameters on 28×28 grey" in (CONF / f"{name}.yaml").read_text()


def test_published_parameter_counts():
    assert [PARAMETERS[name] for name in ("cnn", "lenet5", "deep_cnn")] == [34_826, 61_706, 327_242]
    # Keras' cifar10_resnet example has 274,442 as ResNet20v1: with 784 biases that ours has not, without the
    # normalisation (4 a filter) that ours has on the two projections.
    resnet20 = build("resnet", shape=(32, 32, 3), blocks=3)
    assert resnet20.count_params() == 274_442 - 784 + 4 * (32 + 64)


@pytest.mark.parametrize("name", OPTIONS)
def test_model_takes_raw_pixels_of_any_shape_and_gives_probabilities(name: str):
    import keras

    for shape in ((28, 28, 1), (32, 32, 3)):
        model = build(name, shape)
        pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
        probabilities = np.asarray(model(pixels))
        assert probabilities.shape == (2, 10)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        assert model.name == name
        assert isinstance(model.layers[1], keras.layers.Rescaling)
        assert model.layers[1].scale == 1 / 255
        assert model.layers[-1].activation is keras.activations.softmax


@pytest.mark.parametrize("name", OPTIONS)
def test_names_are_the_same_in_every_build(name: str):
    first, second = build(name, regularization=BOTH), build(name, regularization=BOTH)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]


def test_cnn_is_keras_example():
    from keras import Sequential, layers

    example = Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    ours = build("cnn", regularization=SimpleNamespace(dropout=0.5, l2=0.0))
    assert [type(layer) for layer in ours.layers[1:]] == [type(layer) for layer in example.layers]
    ours.set_weights(example.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(ours(pixels)), np.asarray(example(pixels)))


@pytest.mark.parametrize("name", OPTIONS)
def test_precision_is_float32_at_both_ends(name: str):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(name)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.layers[1].compute_dtype == "float32"
    assert model.layers[-1].compute_dtype == "float32"
    assert model.output.dtype == "float32"
    assert all(layer.compute_dtype == "bfloat16" for layer in model.layers[2:-1])


# Regularization


DROPOUTS = {
    "linear": ["flatten"],
    "mlp": ["dense1", "dense2"],
    "cnn": ["flatten"],
    "lenet5": ["dense1", "dense2"],
    "deep_cnn": ["block1_stride_norm", "block2_stride_norm", "flatten"],
    "resnet": ["average"],
    "layers": ["flatten"],
}  # the layers that dropout follows


@pytest.mark.parametrize("name", OPTIONS)
def test_dropout_is_before_the_classifier_and_between_hidden_layers(name: str):
    import keras

    layers = build(name, regularization=BOTH).layers
    places = [index for index, layer in enumerate(layers) if isinstance(layer, keras.layers.Dropout)]
    assert [layers[index - 1].name for index in places] == DROPOUTS[name]
    assert all(layers[index].rate == 0.25 for index in places)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in build(name).layers)


@pytest.mark.parametrize("name", OPTIONS)
def test_l2_is_on_every_kernel_and_on_nothing_else(name: str):
    model = build(name, regularization=SimpleNamespace(dropout=0.0, l2=0.01))
    kernels = [np.asarray(weight) for weight in model.weights if weight.path.endswith("/kernel")]
    assert len(kernels) == sum(weight.ndim in (2, 4) for weight in map(np.asarray, model.weights))
    expected = sorted(0.01 * float((kernel.astype(np.float64) ** 2).sum()) for kernel in kernels)
    np.testing.assert_allclose(sorted(map(float, model.losses)), expected, rtol=1e-5)
    assert build(name).losses == []


# Values


def test_cnn_values_change_the_architecture():
    # Three filters of 5 pixels on 28 → 24, pooled by 3 → 8.
    model = build("cnn", filters=[3], kernel_size=5, pool_size=3, activation="tanh", normalisation="batch")
    assert model.count_params() == (25 + 1) * 3 + 4 * 3 + (8 * 8 * 3 + 1) * 10
    assert [layer.name for layer in model.layers][2:5] == ["conv1", "conv1_norm", "pool1"]
    assert model.get_layer("conv1").activation.__name__ == "tanh"


def test_batch_norm_remembers_a_tenth_a_step():
    model = build("resnet")
    assert model.get_layer("stem_norm").momentum == 0.9


def test_recipe_of_78k_parameters_can_be_written():
    entries = [
        {"layer": "Conv2D", "filters": 24, "kernel_size": 5, "strides": 2, "activation": "relu"},
        {"layer": "BatchNormalization"},
        {"layer": "Conv2D", "filters": 48, "kernel_size": 3, "activation": "relu"},
        {"layer": "BatchNormalization"},
        {"layer": "Conv2D", "filters": 48, "kernel_size": 3, "activation": "relu"},
        {"layer": "BatchNormalization"},
        {"layer": "MaxPooling2D"},
        {"layer": "Conv2D", "filters": 96, "kernel_size": 3, "activation": "relu"},
        {"layer": "BatchNormalization"},
    ]
    # 28 → 12 → 10 → 8 → 4 → 2
    convolutions = (25 + 1) * 24 + (9 * 24 + 1) * 48 + (9 * 48 + 1) * 48 + (9 * 48 + 1) * 96
    expected = convolutions + 4 * (24 + 48 + 48 + 96) + (2 * 2 * 96 + 1) * 10
    assert build("layers", layers=entries).count_params() == expected == 78_106


def test_resnet_halves_the_size_at_each_stage_after_the_first():
    model = build("resnet", shape=(32, 32, 3))
    sizes = [model.get_layer(f"stage{stage}_block1_add").output.shape[1:] for stage in (1, 2, 3)]
    assert sizes == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]


def test_cnn_learns():
    import keras

    keras.utils.set_random_seed(0)
    model = build("cnn", shape=(8, 8, 1), filters=[4])
    labels = np.arange(64) % 2
    images = np.zeros((64, 8, 8, 1), np.uint8)
    images[labels == 1, :, :4] = 255
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(images, labels, batch_size=8, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["accuracy"][-1] == 1


# Bad values


@pytest.mark.parametrize(
    ("name", "changes", "needed"),
    [
        ("cnn", {"filters": [8] * 5}, 94),  # ((((1·2 + 2)·2 + 2)·2 + 2)·2 + 2)·2 + 2
        ("cnn", {"kernel_size": 29}, 88),  # (1·2 + 28)·2 + 28
        ("lenet5", {"filters": [6] * 4}, 72),  # (((2 + 4)·2 + 4)·2 + 4)·2
        ("deep_cnn", {"filters": [8] * 3}, 53),  # from 4, three times 2·side - 1 + 4
    ],
)
def test_stack_too_deep_is_refused_at_the_smallest_size_and_no_earlier(name, changes, needed):
    with pytest.raises(InputError) as caught:
        build(name, **changes)
    (line,) = caught.value.mistakes
    assert line.startswith("model.filters: ")
    assert f"need images of at least {needed} pixels a side, received 28×28" in line
    with pytest.raises(InputError):
        build(name, (needed - 1, needed + 5, 1), **changes)
    assert build(name, (needed, needed, 1), **changes).output.shape == (None, 10)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("cnn", {"filters": []}, "filters"),
        ("cnn", {"filters": [8, 0]}, "filters"),
        ("cnn", {"filters": [8.0]}, "filters"),
        ("cnn", {"kernel_size": 0}, "kernel_size"),
        ("cnn", {"pool_size": 1}, "pool_size"),
        ("cnn", {"activation": "rely"}, "activation"),
        ("cnn", {"normalisation": "layer"}, "normalisation"),
        ("cnn", {"depth": 3}, "depth"),
        ("mlp", {"units": [True]}, "units"),
        ("resnet", {"blocks": 0}, "blocks"),
    ],
)
def test_schema_refuses(name: str, changes: dict, key: str):
    with pytest.raises(ValidationError, match=key):
        make(name, **changes)
