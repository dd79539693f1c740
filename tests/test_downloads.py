import time
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import InputError
from experiments.ingredients import downloads
from experiments.ingredients.downloads import locate

FAKE_KERAS = """
import os
import numpy
print("Downloading data from somewhere")

class datasets:
    class mnist:
        def load_data():
            images, labels = numpy.zeros((3, 2, 2), "uint8"), numpy.arange(3)
            folder = os.path.join(os.environ["KERAS_HOME"], "datasets")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "mnist.npz"), "wb") as file:
                file.write(b"as Keras left it")
            return (images, labels), (images, labels)

    class fashion_mnist:
        def load_data():
            images, labels = numpy.ones((3, 2, 2), "uint8"), numpy.arange(3)
            os.makedirs(os.path.join(os.environ["KERAS_HOME"], "datasets"), exist_ok=True)
            return (images, labels), (images[:1], labels[:1])
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' cache on a machine with nothing in it, whose network is only a file."""
    monkeypatch.delenv("EXPERIMENTS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(downloads, "ORIGIN", Path(__file__).as_uri())
    downloads._probe.cache_clear()
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def fake_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/keras.py").write_text(FAKE_KERAS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    return tmp_path / "lib/keras.py"


def test_locate_prefers_path_then_own_folder_then_keras_cache(tmp_path: Path, cache: Path, monkeypatch):
    cache.mkdir(parents=True)
    for place in (tmp_path / "given.npz", tmp_path / "mnist.npz", cache / "mnist.npz"):
        place.touch()
    assert locate("mnist", None) == (cache / "mnist.npz", "Keras' cache/mnist.npz")
    monkeypatch.setenv("EXPERIMENTS_DATA", str(tmp_path))
    assert locate("mnist", None) == (tmp_path / "mnist.npz", "EXPERIMENTS_DATA/mnist.npz")
    given = str(tmp_path / "given.npz")
    assert locate("mnist", given) == (Path(given), given)


def test_keras_cache_is_at_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras/datasets").mkdir(parents=True)
    (tmp_path / ".keras/datasets/mnist.npz").touch()
    monkeypatch.setenv("EXPERIMENTS_DATA", str(tmp_path / "none"))
    assert locate("mnist", None).path == tmp_path / ".keras/datasets/mnist.npz"


def test_mnist_is_downloaded_by_keras_into_its_cache_in_silence(cache: Path, fake_keras: Path, capfd):
    assert locate("mnist", None) == (cache / "mnist.npz", "Keras' cache/mnist.npz")
    assert (cache / "mnist.npz").read_bytes() == b"as Keras left it"
    assert capfd.readouterr() == ("", "")


def test_fashion_mnist_becomes_one_archive_in_keras_cache(cache: Path, fake_keras: Path):
    located = locate("fashion_mnist", None)
    assert located.path == cache / "fashion_mnist.npz"
    with np.load(located.path) as archive:
        assert {name: archive[name].shape for name in archive.files} == {
            "x_train": (3, 2, 2),
            "y_train": (3,),
            "x_test": (1, 2, 2),
            "y_test": (1,),
        }
    assert [file.name for file in cache.iterdir()] == ["fashion_mnist.npz"]


def test_files_that_keras_has_already_need_no_network(cache: Path, fake_keras: Path, monkeypatch):
    monkeypatch.setattr(downloads, "ORIGIN", "file:///no/such/file")
    (cache / "fashion-mnist").mkdir(parents=True)
    assert locate("fashion_mnist", None).path.is_file()


def test_failing_download_is_told_in_one_line(cache: Path, fake_keras: Path):
    fake_keras.write_text("raise OSError('disk full')")
    with pytest.raises(InputError) as caught:
        locate("mnist", None)
    (line,) = caught.value.mistakes
    assert "not downloaded (OSError: disk full)" in line
    assert "Traceback" not in line


def test_no_network_is_known_within_seconds_and_without_keras(cache: Path, fake_keras: Path, monkeypatch):
    fake_keras.write_text("raise AssertionError('Keras was started')")
    for proxy in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(downloads, "ORIGIN", "https://storage.googleapis.com/no/such/file")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"dataset=mnist: not found .* not downloaded \(.*Connection refused"):
        locate("mnist", None)
    assert time.monotonic() - started < downloads.PROBE_SECONDS + 2


def test_hanging_network_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(downloads, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(downloads, "PROBE_SECONDS", 0.2)
    downloads._probe.cache_clear()
    assert downloads._probe("https://hangs") == "no answer from the network in 0.2 s"
    downloads._probe.cache_clear()


def test_a_single_file_is_found_or_downloaded(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/a.gz").write_bytes(b"content")
    origin = (tmp_path / "origin").as_uri()
    assert downloads.locate_file("a.gz", origin) == (cache / "a.gz", "Keras' cache/a.gz")
    assert (cache / "a.gz").read_bytes() == b"content"
    assert [file.name for file in cache.iterdir()] == ["a.gz"]
    monkeypatch.setenv("EXPERIMENTS_DATA", str(tmp_path / "origin"))
    assert downloads.locate_file("a.gz", "file:///none").path == tmp_path / "origin/a.gz"
    with pytest.raises(
        InputError, match=r"^b.gz: not found as .*/b.gz or .*, and not downloaded from file:///none/b.gz"
    ):
        downloads.locate_file("b.gz", "file:///none")
