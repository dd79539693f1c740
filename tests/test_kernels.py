"""Which kernels TensorFlow computes with, whoever imports it."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from experiments.errors import InputError
from experiments.ingredients import kernels

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is TensorFlow's own choice elsewhere"
)


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_where_nothing_else_was_asked_for(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(kernels.ONEDNN, raising=False)
    if given is not None:
        monkeypatch.setenv(kernels.ONEDNN, given)
    assert kernels.variables_of_import()[kernels.ONEDNN] == expected


@pytest.mark.parametrize("wanted", ["0", "False"])
def test_tensorflow_that_was_imported_with_other_kernels_is_refused(tensorflow: Any, wanted: str) -> None:
    """As a notebook's that imports TensorFlow first, on a CPU for which its own choice is another one."""
    with pytest.raises(InputError) as refused:
        kernels.refuse_others({kernels.ONEDNN: wanted})
    assert str(refused.value) == (
        "training: TensorFlow was imported in this process with oneDNN on, and TF_ENABLE_ONEDNN_OPTS is "
        f"{wanted.lower()}: results would not be those of other processes; before the first import of tensorflow or "
        f'keras, set os.environ["TF_ENABLE_ONEDNN_OPTS"] = "{wanted.lower()}"'
    )


@pytest.mark.parametrize("wanted", [{"TF_ENABLE_ONEDNN_OPTS": "1"}, {"TF_ENABLE_ONEDNN_OPTS": "True"}, {}])
def test_tensorflow_that_was_imported_with_the_same_kernels_is_used(tensorflow: Any, wanted: dict[str, str]) -> None:
    kernels.refuse_others(wanted)


def test_what_tensorflow_cannot_read_is_its_own_choice(tensorflow: Any) -> None:
    kernels.refuse_others({kernels.ONEDNN: "yes"})


def test_tensorflow_that_is_not_imported_may_still_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.modules", {})
    kernels.refuse_others({kernels.ONEDNN: "0"})
