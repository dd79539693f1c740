from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter, ValidationError

from experiments.errors import InputError
from experiments.ingredients.models import Model

L2 = SimpleNamespace(dropout=0.0, l2=0.01)

pytestmark = pytest.mark.usefixtures("tensorflow")


def make(*layers: dict):
    return TypeAdapter(Model).validate_python({"name": "layers", "layers": list(layers)})


def build(*layers: dict, regularization=L2):
    return make(*layers).build((28, 28, 1), 10, regularization)


def layer(name: str, **arguments) -> dict:
    return {"layer": name, **arguments}


CONV = layer("Conv2D", filters=3, kernel_size=3)


def test_layers_are_stacked_between_scaling_and_classifier():
    model = build(CONV, layer("MaxPooling2D"), layer("GlobalAveragePooling2D"))
    names = [
        "pixels",
        "rescale",
        "conv2d_0",
        "maxpooling2d_1",
        "globalaveragepooling2d_2",
        "flatten",
        "classes",
    ]
    assert [built.name for built in model.layers] == names
    assert model.count_params() == (9 + 1) * 3 + (3 + 1) * 10


def test_entry_keeps_its_arguments_when_it_is_written_out():
    entries = [layer("ZeroPadding2D", padding=[[1, 0], [2, 2]]), layer("Dense", units=2, activation=None)]
    assert make(*entries).model_dump() == {"name": "layers", "layers": entries}


@pytest.mark.parametrize(
    "entry",
    [
        layer("Activation", activation="gelu"), layer("AlphaDropout", rate=0.1),
        layer("AveragePooling2D", pool_size=2), layer("BatchNormalization", momentum=0.9), CONV,
        layer("Conv2DTranspose", filters=2, kernel_size=[3, 3]), layer("Cropping2D", cropping=2),
        layer("Dense", units=4), layer("DepthwiseConv2D", kernel_size=3), layer("Dropout", rate=0.5),
        layer("ELU"), layer("Flatten"), layer("GaussianDropout", rate=0.5),
        layer("GaussianNoise", stddev=1), layer("GlobalAveragePooling2D"), layer("GlobalMaxPooling2D"),
        layer("GroupNormalization", groups=1), layer("LayerNormalization", axis=[1, 2, 3]),
        layer("LeakyReLU", negative_slope=0.2), layer("MaxPooling2D", pool_size=3, strides=2, padding="same"),
        layer("PReLU", shared_axes=[1, 2]), layer("ReLU", max_value=6.0),
        layer("Reshape", target_shape=[7, 7, 16]), layer("SeparableConv2D", filters=2, kernel_size=3),
        layer("SpatialDropout2D", rate=0.1), layer("UpSampling2D", interpolation="bilinear"),
        layer("ZeroPadding2D"),
    ],
    ids=lambda entry: entry["layer"],
)  # fmt: skip
def test_every_allowed_layer_builds(entry: dict):
    assert build(entry).output.shape == (None, 10)


def test_l2_is_on_every_kernel_unless_an_entry_gives_its_own():
    model = build(
        CONV,
        layer("SeparableConv2D", filters=2, kernel_size=3),
        layer("DepthwiseConv2D", kernel_size=3),
        layer("Conv2DTranspose", filters=3, kernel_size=3, kernel_regularizer=None),
        layer("Dense", units=4, kernel_regularizer="l1"),
    )
    regularizers = {
        (built.name, key): getattr(built, key)
        for built in model.layers
        for key in ("kernel_regularizer", "depthwise_regularizer", "pointwise_regularizer")
        if getattr(built, key, None) is not None
    }
    ours = {key for key, value in regularizers.items() if getattr(value, "l2", None) == pytest.approx(0.01)}
    assert ours == {
        ("conv2d_0", "kernel_regularizer"),
        ("separableconv2d_1", "depthwise_regularizer"),
        ("separableconv2d_1", "pointwise_regularizer"),
        ("depthwiseconv2d_2", "depthwise_regularizer"),
        ("classes", "kernel_regularizer"),
    }
    assert set(regularizers) - ours == {("dense_4", "kernel_regularizer")}


WRONG = {
    "unknown argument": (layer("Dense", unit=3), "unit", "did you mean units?"),
    "not an argument": (CONV | {"name": "mine"}, "name", "Conv2D has no such argument"),
    "missing": (layer("Conv2D", filters=3), "kernel_size", "missing; Conv2D needs kernel_size"),
    "truth for number": (layer("Dense", units=True), "units", "must not be true or false, received True"),
    "word for truth": (CONV | {"use_bias": "no"}, "use_bias", "must be true or false, received 'no'"),
    "half a unit": (layer("Dense", units=3.5), "units", "must be a whole number, received 3.5"),
    "word for number": (layer("Dropout", rate="half"), "rate", "must be a number, received 'half'"),
    "negative": (CONV | {"filters": -3}, "", "Received filters=-3"),
    "out of range": (layer("Dropout", rate=1.5), "", "Received: rate=1.5"),
    "activation": (CONV | {"activation": "rely"}, "", "identifier: rely"),
    "padding": (CONV | {"padding": "full"}, "", "Received: full"),
    "shape": (layer("Reshape", target_shape=[7]), "", "target_shape=(7,)"),
    "too large a pool": (layer("MaxPooling2D", pool_size=29), "", "output size would be zero or negative"),
    "too much cropped": (layer("Cropping2D", cropping=14), "", "Values in `cropping` argument"),
}


@pytest.mark.parametrize(("entry", "key", "rule"), WRONG.values(), ids=WRONG)
def test_bad_argument_is_told_in_one_line(entry: dict, key: str, rule: str):
    with pytest.raises(InputError) as caught:
        build(layer("ReLU"), entry)
    (line,) = caught.value.mistakes
    assert line.startswith(f"model.layers.1.{key}: " if key else f"model.layers.1: {entry['layer']}: ")
    assert rule in line
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 300


def test_layer_that_does_not_fit_behind_the_one_before_is_refused():
    with pytest.raises(InputError, match=r"^model.layers.1: Conv2D: .*expected min_ndim=4, found ndim=2"):
        build(layer("Flatten"), CONV)


@pytest.mark.parametrize("name", ["Lambda", "TorchModuleWrapper", "TFSMLayer", "Conv2d", "StringLookup", ""])
def test_only_allowed_layers_are_known(name: str):
    with pytest.raises(ValidationError) as caught:
        make(layer(name))
    (error,) = caught.value.errors()
    assert error["type"] == "literal_error"
    assert error["loc"] == ("layers", "layers", 0, "layer")


@pytest.mark.parametrize("value", [{"class_name": "Lambda"}, [{"a": 1}], float("nan"), [float("inf")], print])
def test_arguments_must_be_plain(value: object):
    with pytest.raises(ValidationError, match="must be a number, a word, true, false, null or a list of these"):
        make(layer("Dense", units=value))


@pytest.mark.parametrize(
    "last", [layer("Dense", units=10, activation="softmax"), layer("Activation", activation="softmax")]
)
def test_own_classifier_is_refused(last: dict):
    with pytest.raises(ValidationError, match="must not end in a softmax"):
        make(CONV, last)


def test_empty_list_is_refused():
    with pytest.raises(ValidationError, match="at least 1 item"):
        make()
