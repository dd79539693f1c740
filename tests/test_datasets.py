import gzip
import hashlib
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from sklearn.datasets import load_digits

from experiments.errors import InputError
from experiments.ingredients import datasets, published, qmnist
from experiments.ingredients.datasets import Dataset, ImageData
from experiments.ingredients.digits import enlarge, read_digits
from experiments.ingredients.idx import read_idx
from experiments.ingredients.images import deal, shuffle

OPTIONS = sorted((Path(__file__).parents[1] / "conf" / "dataset").glob("*.yaml"))
ADAPTER = TypeAdapter(Dataset)


def make(name: str, **values):
    given = yaml.safe_load((OPTIONS[0].parent / f"{name}.yaml").read_text())
    return ADAPTER.validate_python(given | values)


def write_npz(path: Path, train: int = 40, test: int = 10, classes: int = 4, **changes) -> Path:
    """Grey 6×5 images, random but the same every time; labels 0, 1, 2, 3, 0, 1, …"""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (train, 6, 5), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": random.integers(0, 256, (test, 6, 5), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }
    np.savez(path, **(arrays | changes))
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without network and without any data set; returns its $EXPERIMENTS_DATA."""
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("EXPERIMENTS_DATA", str(data))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("experiments.ingredients.downloads._probe", lambda url: "no network")
    return data


@pytest.fixture
def small_mnist(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """40 + 10 images that pass for MNIST."""
    random = np.random.default_rng(1)
    arrays = {
        "x_train": random.integers(0, 256, (40, 28, 28), dtype=np.uint8),
        "y_train": np.arange(40, dtype=np.uint8) % 10,
        "x_test": random.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "y_test": np.arange(10, dtype=np.uint8),
    }
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    monkeypatch.setattr(datasets, "MNIST_DIGESTS", digests)
    np.savez(nowhere / "mnist.npz", **arrays)
    return arrays


def check_whole(data: ImageData) -> None:
    for split in (data.train, data.validation, data.test):
        assert split.images.dtype == np.uint8
        assert split.images.flags.c_contiguous
        assert split.images.shape == (len(split.labels), *data.image_shape)
        assert split.labels.dtype == np.int64
        assert set(split.labels.tolist()) <= set(range(data.classes))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_option_file_lists_exactly_the_fields_of_its_class(path: Path):
    text = path.read_text()
    values = yaml.safe_load(text)
    option = ADAPTER.validate_python(values)
    assert text.startswith("# ")
    assert values["name"] == path.stem
    assert set(values) == set(type(option).model_fields)


def test_every_class_has_an_option_file():
    assert [path.stem for path in OPTIONS] == [
        "auto", "cifar10", "cifar100", "digits", "emnist", "fashion_mnist", "files", "kmnist", "mnist",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation_fraction", 0.0), ("validation_fraction", 1.0), ("validation_fraction", float("nan")),
        ("train_limit", 0), ("train_limit", 1.5), ("train_limit", True), ("shuffle", True),
    ],
)  # fmt: skip
def test_schema_refuses(key: str, value: object):
    with pytest.raises(ValidationError, match=key):
        make("digits", **{key: value})


# MNIST


def test_mnist_keeps_the_official_order_and_the_last_tenth_for_validation(small_mnist):
    data = make("mnist", path=None).load()
    check_whole(data)
    assert data.train.images.shape == (36, 28, 28, 1)
    np.testing.assert_array_equal(data.train.images[..., 0], small_mnist["x_train"][:36])
    np.testing.assert_array_equal(data.validation.images[..., 0], small_mnist["x_train"][36:])
    np.testing.assert_array_equal(data.validation.labels, [6, 7, 8, 9])
    np.testing.assert_array_equal(data.test.images[..., 0], small_mnist["x_test"])
    assert data.class_names == tuple("0123456789")
    assert data.source == "EXPERIMENTS_DATA/mnist.npz"


def test_digest_covers_names_shapes_types_and_bytes(small_mnist):
    expected = hashlib.sha256()
    for name, shape, dtype in (
        ("x_train", "(40, 28, 28, 1)", "uint8"),
        ("y_train", "(40,)", "int64"),
        ("x_test", "(10, 28, 28, 1)", "uint8"),
        ("y_test", "(10,)", "int64"),
    ):
        content = hashlib.sha256(small_mnist[name].tobytes()).hexdigest()
        expected.update(f"{name} {shape} {dtype} {content}\n".encode())
    assert make("mnist", path=None).load().digest == expected.hexdigest()


def test_digest_does_not_depend_on_the_split(small_mnist):
    digests = {
        make("mnist", path=None, validation_fraction=f, train_limit=n).load().digest
        for f, n in ((0.1, None), (0.5, None), (0.1, 12))
    }
    assert len(digests) == 1


def test_train_limit_keeps_the_first_images_and_all_of_validation(small_mnist):
    data = make("mnist", path=None, train_limit=12).load()
    np.testing.assert_array_equal(data.train.images[..., 0], small_mnist["x_train"][:12])
    assert len(data.validation.labels) == 4


def test_train_limit_above_what_is_there_is_refused(small_mnist):
    with pytest.raises(InputError, match=r"^dataset.train_limit: must be at most 36 here, received 37$"):
        make("mnist", path=None, train_limit=37).load()


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_mnist_with_one_changed_value_is_refused_and_the_array_named(nowhere, small_mnist, name: str):
    array = small_mnist[name].copy()
    array.flat[0] = (int(array.flat[0]) + 1) % 10
    np.savez(nowhere / "mnist.npz", **(small_mnist | {name: array}))
    with pytest.raises(InputError) as caught:
        make("mnist", path=None).load()
    (line,) = caught.value.mistakes
    assert line.startswith(f"dataset.path: {nowhere / 'mnist.npz'}: {name} is not MNIST's")
    assert datasets.MNIST_DIGESTS[name] in line


def test_mnist_nowhere_names_the_places_and_the_remedy(nowhere: Path, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        make("mnist", path=None).load()
    (line,) = caught.value.mistakes
    places = (nowhere / "mnist.npz", tmp_path / "keras/datasets/mnist.npz")
    for words in (*places, "no network", "EXPERIMENTS_DATA", "dataset=digits"):
        assert str(words) in line


def test_mnist_at_a_wrong_path_is_not_looked_for_elsewhere(small_mnist):
    with pytest.raises(InputError, match=r"^dataset.path: no such file, received /no/such.npz"):
        make("mnist", path="/no/such.npz").load()


def test_real_mnist():
    if not (Path(os.environ.get("EXPERIMENTS_DATA", "/none")) / "mnist.npz").is_file():
        pytest.skip("no mnist.npz in EXPERIMENTS_DATA")
    data = make("auto").load()
    check_whole(data)
    assert data.name == "mnist"
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [
        54_000,
        6_000,
        10_000,
    ]
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(data.doubtful) == 15
    assert sum(map(len, data.doubtful.values())) == 10
    assert all(data.test.labels[index] not in labels for index, labels in data.doubtful.items())


# Auto


def test_auto_is_mnist_where_its_file_is(small_mnist):
    resolution = make("auto", validation_fraction=0.2, train_limit=20).resolve()
    assert resolution == (make("mnist", path=None, validation_fraction=0.2, train_limit=20), "")
    assert make("auto").load().name == "mnist"


def test_auto_is_digits_elsewhere_and_says_so(nowhere: Path):
    dataset, message = make("auto", train_limit=7).resolve()
    assert dataset == make("digits", train_limit=7)
    assert "digits of scikit-learn" in message
    assert "no network" in message
    assert "\n" not in message


def test_a_damaged_mnist_is_not_replaced_by_digits(nowhere: Path):
    (nowhere / "mnist.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="cut off"):
        make("auto").load()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "digits", "files"])
def test_all_others_resolve_to_themselves(name: str):
    dataset = make(name)
    assert dataset.resolve() == (dataset, "")


# Fashion-MNIST


def test_fashion_mnist_of_other_shape_is_refused(nowhere: Path):
    write_npz(nowhere / "fashion_mnist.npz")
    with pytest.raises(InputError, match=r"is not Fashion-MNIST: must hold .* received \(\(40, 6, 5, 1\)"):
        make("fashion_mnist", path=None).load()


def test_fashion_mnist_has_names(nowhere: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "FASHION_SHAPES", ((40, 6, 5, 1), (10, 6, 5, 1)))
    write_npz(nowhere / "fashion_mnist.npz", classes=10)
    data = make("fashion_mnist", path=None).load()
    check_whole(data)
    assert data.class_names[9] == "Ankle boot"
    assert len(data.class_names) == 10
    assert not data.doubtful


# Digits


def test_digits_are_scikit_learns():
    images, labels = read_digits()
    expected = load_digits()
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(labels, expected.target)


def test_digits_are_split_into_stratified_parts_that_are_the_same_bits_everywhere():
    data = make("digits").load()
    check_whole(data)
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [1293, 144, 360]
    for split in (data.train, data.validation, data.test):
        assert np.ptp(np.bincount(split.labels)) <= 7  # the classes themselves have 174 to 183 images
    assert data.image_shape == (28, 28, 1)
    assert data.digest == "90848523233c321b49b64baa5250146b82f009caec111d5b6ba6184f08666959"


def test_digits_have_each_image_once():
    data = make("digits").load()
    ours = np.concatenate([data.train.images, data.validation.images, data.test.images]).reshape(1797, -1)
    theirs = enlarge(read_digits()[0]).reshape(1797, -1)
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_enlarge_interpolates_in_thirds_inside_a_frame():
    images = np.zeros((2, 8, 8), np.int64)
    images[0] = 16
    images[1, :, 1:] = 12  # columns 0, 12, 12, …; 12 of 16 is 191.25 of 255
    large = enlarge(images)[..., 0]
    assert large.shape == (2, 28, 28)
    assert (large[0, 2:-2, 2:-2] == 255).all()
    assert large[0].sum() == 255 * 24 * 24
    # Centres of the first source columns lie at 1 and 4 of the enlarged ones: 0 0 | 1/3 2/3 | 1 1 …
    np.testing.assert_array_equal(large[1, 14, 2:8], [0, 0, 64, 128, 191, 191])


# Files


def make_files(path: Path, **values):
    return make("files", **({"path": str(path), "class_names": None} | values))


def test_npz_is_read_in_an_order_that_spreads_the_classes(tmp_path: Path):
    x_train = np.arange(40, dtype=np.uint8).repeat(30).reshape(40, 6, 5)
    path = write_npz(tmp_path / "mine.npz", x_train=x_train, y_train=np.arange(40) // 10)  # sorted by class
    data = make_files(path, train_limit=8).load()
    check_whole(data)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 1, 11, 21, 31]
    assert data.validation.images[:, 0, 0, 0].tolist() == [9, 19, 29, 39]
    assert data.validation.labels.tolist() == [0, 1, 2, 3]
    assert data.class_names == ("0", "1", "2", "3")
    assert data.source == str(path)
    assert data.name == "mine.npz"


def test_a_folder_has_its_name_whatever_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "flowers" / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to("flowers")
    monkeypatch.chdir(tmp_path / "flowers")
    for path in ("../flowers/", ".", "train/..", "../link"):
        assert make_files(path).title == "flowers"
    assert make("mnist").title == "mnist"


def test_own_validation_part_is_used_and_told(tmp_path: Path):
    random = np.random.default_rng(3)
    x_val, y_val = random.integers(0, 256, (6, 6, 5), dtype=np.uint8), np.arange(6) % 4
    plain = make_files(write_npz(tmp_path / "plain.npz")).load()
    data = make_files(write_npz(tmp_path / "mine.npz", x_val=x_val, y_val=y_val)).load()
    check_whole(data)
    np.testing.assert_array_equal(data.validation.images[..., 0], x_val)
    np.testing.assert_array_equal(data.validation.labels, y_val)
    assert len(data.train.labels) == 40
    assert data.notes == ("validation: the 6 images that mine.npz has for it",)
    assert data.digest != plain.digest


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("~nobody-of-this-name/x", "no such file or folder"),
        ("a" * 300, "cannot be read (File name too long)"),
        ("a\0b", "cannot be read (embedded null byte)"),
        ("/dev/zero", "must be a regular file, received a device"),
    ],
)
@pytest.mark.parametrize("name", ["files", "mnist"])
def test_paths_that_lead_nowhere_are_told_in_a_line(name: str, path: str, rule: str):
    with pytest.raises(InputError) as caught:
        make(name, path=path).load()
    (line,) = caught.value.mistakes
    assert line.startswith("dataset.path: ")
    assert rule in line or (name == "mnist" and "no such file" in line)


def test_npz_takes_class_names(tmp_path: Path):
    path = write_npz(tmp_path / "mine.npz")
    assert make_files(path, class_names=["a", "b", "c", "d"]).load().class_names == ("a", "b", "c", "d")
    with pytest.raises(InputError, match=r"^dataset.class_names: must be as many as .*, 4, received 1$"):
        make_files(path, class_names=["a"]).load()


def test_folder_has_names_of_its_own(tmp_path: Path):
    with pytest.raises(InputError, match=r"^dataset.class_names: must be null for a folder"):
        make_files(tmp_path, class_names=["a", "b"]).load()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (None, "dataset.path: must be given, an .npz or a folder with train/ and test/, received null"),
        ("/no/such", "dataset.path: no such file or folder, received /no/such"),
    ],
)
def test_files_need_a_path(path: str | None, line: str):
    with pytest.raises(InputError) as caught:
        make("files", path=path, class_names=None).load()
    assert caught.value.mistakes == (line,)


def test_validation_must_not_be_empty(tmp_path: Path):
    path = write_npz(tmp_path / "mine.npz", train=4, classes=2)
    with pytest.raises(InputError, match=r"^dataset.validation_fraction: 0.1 of 4 .* none for validation"):
        make_files(path).load()


def test_validation_must_leave_every_class_an_image(tmp_path: Path):
    path = write_npz(tmp_path / "mine.npz", train=4, classes=4)
    with pytest.raises(InputError, match=r"^dataset.validation_fraction: 0.5 of 4 .* leaves class 2 without"):
        make_files(path, validation_fraction=0.5).load()


# Splits


def split_of(data: ImageData) -> tuple[set[int], set[int]]:
    """The training and validation images of `write_distinct`, by their first pixel."""
    return set(data.train.images[:, 0, 0, 0].tolist()), set(data.validation.images[:, 0, 0, 0].tolist())


def write_distinct(path: Path, labels: np.ndarray) -> Path:
    """Image i is i everywhere."""
    return write_npz(path, x_train=np.arange(len(labels), dtype=np.uint8).repeat(30).reshape(-1, 6, 5), y_train=labels)


UNEVEN = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [50, 30, 20, 11]))


@pytest.mark.parametrize("name", ["files", "mnist"])
def test_split_seed_draws_a_stratified_part(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_distinct(tmp_path / "a.npz", UNEVEN)
    monkeypatch.setattr(datasets, "MNIST_DIGESTS", {})
    monkeypatch.setattr(datasets, "DIGIT_NAMES", tuple("0123"))
    parts = {}
    for seed in (None, 0, 1, 2):
        data = make(name, path=str(path), split_seed=seed, validation_fraction=0.2).load()
        check_whole(data)
        train, parts[seed] = split_of(data)
        assert (len(train), len(parts[seed]), len(train | parts[seed])) == (89, 22, 111)
        if seed is not None:
            shares = np.bincount(data.validation.labels, minlength=4) / np.bincount(UNEVEN)
            assert np.abs(shares - 0.2).max() < 0.1
            assert data.notes == (
                f"validation: 22 of the training images, stratified, drawn by dataset.split_seed={seed}",
            )
    assert len({frozenset(part) for part in parts.values()}) == 4
    again = make(name, path=str(path), split_seed=1, validation_fraction=0.2).load()
    assert split_of(again)[1] == parts[1]


def test_split_seed_draws_the_same_images_in_every_numpy():
    assert shuffle(np.arange(12) // 4, 3).tolist() == [0, 7, 10, 1, 5, 11, 2, 6, 9, 3, 4, 8]


def test_a_limited_part_is_stratified_under_a_seed(tmp_path: Path):
    data = make_files(write_distinct(tmp_path / "a.npz", UNEVEN), split_seed=5, train_limit=37).load()
    assert np.abs(np.bincount(data.train.labels) - 37 * np.bincount(UNEVEN) / 111).max() < 1.5


@pytest.mark.parametrize("split_seed", [None, 4])
@pytest.mark.parametrize("name", ["files", "mnist"])
def test_folds_are_disjoint_stratified_and_together_everything(
    name: str, split_seed: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_distinct(tmp_path / "a.npz", UNEVEN)
    monkeypatch.setattr(datasets, "MNIST_DIGESTS", {})
    monkeypatch.setattr(datasets, "DIGIT_NAMES", tuple("0123"))
    seen: list[int] = []
    for fold in range(5):
        data = make(name, path=str(path), folds=5, fold=fold, split_seed=split_seed).load()
        check_whole(data)
        train, validation = split_of(data)
        assert not train & validation
        assert len(train | validation) == 111
        counts = np.bincount(data.validation.labels, minlength=4)
        assert np.abs(counts - np.bincount(UNEVEN) / 5).max() < 1
        drawn = "" if split_seed is None else ", drawn by dataset.split_seed=4"
        assert data.notes == (f"validation: fold {fold} of 0-4, {len(validation)} images, stratified{drawn}",)
        seen += validation
    assert sorted(seen) == list(range(111))


def test_deal_gives_each_fold_its_share_of_each_class():
    assert deal(np.array([1, 0, 0, 1, 1, 0, 0]), 3).tolist() == [1, 0, 1, 2, 0, 2, 0]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"folds": 5}, "folds and fold go together.* received folds 5, fold None"),
        ({"fold": 0}, "folds and fold go together.* received folds None, fold 0"),
        ({"folds": 5, "fold": 5}, "fold must be in 0-4, received folds 5, fold 5"),
        ({"folds": 1, "fold": 0}, "greater than or equal to 2"),
        ({"fold": -1, "folds": 3}, "greater than or equal to 0"),
        ({"split_seed": -1}, "greater than or equal to 0"),
    ],
)
def test_folds_that_make_no_sense_are_refused_before_anything_is_read(values: dict[str, int], rule: str):
    with pytest.raises(ValidationError, match=rule):
        make("auto", **values)


def test_folds_must_leave_every_class_an_image_and_have_one(tmp_path: Path):
    path = write_npz(tmp_path / "a.npz", train=5, classes=4)
    with pytest.raises(
        InputError, match=r"^dataset.folds: fold 1 of 2 of 5 .* leaves class 2 without an image to train"
    ):
        make_files(path, folds=2, fold=1).load()
    with pytest.raises(InputError, match=r"^dataset.folds: fold 5 of 6 of 5 .* leaves none for validation"):
        make_files(path, folds=6, fold=5).load()


@pytest.mark.parametrize(("values", "key"), [({"split_seed": 0}, "split_seed"), ({"folds": 2, "fold": 0}, "folds")])
def test_a_validation_part_of_its_own_is_not_drawn_again(values: dict[str, int], key: str, tmp_path: Path):
    path = write_npz(tmp_path / "a.npz", x_val=np.zeros((4, 6, 5), np.uint8), y_val=np.arange(4))
    with pytest.raises(InputError, match=rf"^dataset.{key}: must be null where the data set has a validation part"):
        make_files(path, **values).load()


def test_auto_hands_the_split_on(nowhere: Path):
    dataset, _ = make("auto", split_seed=3, folds=4, fold=1).resolve()
    assert dataset == make("digits", split_seed=3, folds=4, fold=1)


# QMNIST


def write_idx(path: Path, array: np.ndarray, code: int) -> bytes:
    """A compressed file in the format that MNIST and QMNIST are published in."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype({8: ">u1", 12: ">i4"}[code]).tobytes()))
    return path.read_bytes()


@pytest.fixture
def small_qmnist(nowhere: Path, small_mnist: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """MNIST's 10 and 25 further test images; returns all 35."""
    images = np.random.default_rng(2).integers(0, 256, (35, 28, 28), dtype=np.uint8)
    labels = np.stack([np.arange(35) % 10, *(np.full(35, 300_000) for _ in range(7))], axis=1)
    monkeypatch.setattr(qmnist, "KNOWN", 10)
    written = []
    for (file, _), array, code in zip(qmnist.FILES, (images, labels), (8, 12), strict=True):
        written.append((file, hashlib.md5(write_idx(nowhere / file, array, code)).hexdigest()))
    monkeypatch.setattr(qmnist, "FILES", written)
    return images


def test_qmnists_further_images_are_the_test_part(small_qmnist: np.ndarray):
    official, data = (make("mnist", path=None, test=test).load() for test in ("official", "qmnist50k"))
    check_whole(data)
    np.testing.assert_array_equal(data.test.images[..., 0], small_qmnist[10:])
    assert data.test.labels.tolist() == (np.arange(10, 35) % 10).tolist()
    np.testing.assert_array_equal(data.train.images, official.train.images)
    assert data.digest != official.digest
    assert not data.doubtful
    assert (official.name, data.name) == ("mnist", "mnist+qmnist50k")
    assert data.notes == ("test: the 25 further test images of QMNIST, none of which is in MNIST",)


def test_qmnist_is_verified_by_its_digest(small_qmnist: np.ndarray, nowhere: Path):
    write_idx(nowhere / qmnist.FILES[0][0], small_qmnist[::-1], 8)
    with pytest.raises(InputError, match=r"^dataset.path: .*idx3-ubyte.gz: is not QMNIST's: MD5 must be .*, received"):
        make("mnist", path=None, test="qmnist50k").load()


def test_qmnist_nowhere_names_the_places_and_the_remedy(small_mnist, nowhere: Path, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        make("mnist", path=None, test="qmnist50k").load()
    (line,) = caught.value.mistakes
    file = "qmnist-test-images-idx3-ubyte.gz"
    for words in (
        nowhere / file,
        tmp_path / "keras/datasets" / file,
        "githubusercontent",
        "no network",
        "EXPERIMENTS_DATA",
    ):
        assert str(words) in line


@pytest.mark.parametrize(
    "content",
    [
        b"", gzip.compress(b""), gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abcd"),
        gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), gzip.compress(b"\0\0\x09\x01\0\0\0\x01a"), b"PK",
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc")[:-9], gzip.compress(b"\0\0\x08\x07" + bytes(28)),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_damaged_idx_file_is_a_line(content: bytes, tmp_path: Path):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_idx(tmp_path / "a.gz")
    (line,) = caught.value.mistakes
    assert line.startswith(f"{tmp_path / 'a.gz'}: ")
    assert len(line.splitlines()) == 1


# Published data sets


PUBLISHED = sorted(published.FACTS)


@pytest.fixture
def small_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each published data set with two training images a class and 10 test images."""
    small = {}
    for name, facts in published.FACTS.items():
        _, height, width, channels = facts.shapes[0]
        count = 2 * len(facts.class_names)
        small[name] = facts._replace(shapes=((count, height, width, channels), (10, height, width, channels)))
    monkeypatch.setattr(published, "FACTS", small)


def arrays_of(name: str) -> dict[str, np.ndarray]:
    facts, random = published.FACTS[name], np.random.default_rng(5)
    x_train, x_test = (random.integers(0, 256, shape, dtype=np.uint8) for shape in facts.shapes)
    classes = len(facts.class_names)
    return {
        "x_train": x_train, "y_train": np.arange(len(x_train))[:, np.newaxis] % classes,
        "x_test": x_test, "y_test": np.arange(10)[:, np.newaxis] % classes,
    }  # fmt: skip


def test_published_data_sets_have_as_many_names_as_classes():
    counts = {name: len(set(facts.class_names)) for name, facts in published.FACTS.items()}
    assert counts == {"cifar10": 10, "cifar100": 100, "kmnist": 10, "emnist": 47}
    names = published.FACTS["cifar100"].class_names
    assert list(names) == sorted(names)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_archives_are_read(name: str, nowhere: Path, small_facts: None):
    arrays = arrays_of(name)
    np.savez(nowhere / f"{name}.npz", **arrays)
    data = make(name).load()
    check_whole(data)
    np.testing.assert_array_equal(data.test.images, arrays["x_test"])
    assert data.class_names == published.FACTS[name].class_names
    assert data.source == f"EXPERIMENTS_DATA/{name}.npz"
    write_npz(nowhere / "other.npz")
    title = re.escape(published.FACTS[name].title)
    with pytest.raises(InputError, match=rf"is not {title}: must hold images .* received \(\(40, 6, 5, 1\)"):
        make(name, path=str(nowhere / "other.npz")).load()


@pytest.mark.parametrize(("name", "turned"), [("kmnist", False), ("emnist", True)])
def test_published_idx_files_are_read(name: str, turned: bool, nowhere: Path, small_facts: None):
    arrays, facts = arrays_of(name), published.FACTS[name]
    stored = {key: array[..., 0] for key, array in arrays.items()}
    if turned:  # as EMNIST is published
        stored |= {key: stored[key].transpose(0, 2, 1) for key in ("x_train", "x_test")}
    for file, key in zip(facts.idx_files, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        write_idx(nowhere / file, stored[key], 8)
    data = make(name, path=str(nowhere)).load()
    check_whole(data)
    np.testing.assert_array_equal(data.test.images, arrays["x_test"])
    assert data.test.labels.tolist() == arrays["y_test"][:, 0].tolist()
    (nowhere / facts.idx_files[1]).unlink()
    with pytest.raises(InputError, match=rf"must hold the files of .*, received none named {facts.idx_files[1]}$"):
        make(name, path=str(nowhere)).load()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_that_is_nowhere_is_told(name: str, nowhere: Path):
    with pytest.raises(InputError) as caught:
        make(name).load()
    (line,) = caught.value.mistakes
    reason = "no network" if name.startswith("cifar") else "it is none of Keras' data sets"
    assert f"not downloaded ({reason}); put {name}.npz into a folder" in line
