from pathlib import Path

import pytest

from experiments.conf import CONF
from experiments.errors import InputError
from experiments.plain_yaml import read_yaml, read_yaml_text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epochs: 010", "epochs: 010 would be read as 8"),
        ("  rate: 1:30  # minutes", "rate: 1:30 would be read as 90"),
        ("filters: [032, 64]", "filters: 032 would be read as 26"),
        ("- 0_17", "0_17 would be read as 15"),
        ("a: {b: -012}", "b: -012 would be read as -10"),
        ("seconds: 1:30.5", "seconds: 1:30.5 would be read as 90.5"),
        ("007: seven", "007 would be read as 7"),
        ("epochs: !!int '010'", "epochs: 010 would be read as 8"),
    ],
)
def test_number_trap_is_named_with_its_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "option.yaml").write_text(f"# header\n{line}\n")
    for read in (read_yaml, read_yaml_text):
        with pytest.raises(InputError, match=r"option\.yaml:2: ") as caught:
            read(tmp_path / "option.yaml")
        assert said in str(caught.value)


def test_every_number_trap_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "option.yaml").write_text("epochs: 010\nfilters: [012, 8, 014]\n")
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "option.yaml")
    assert [mistake.partition(": ")[2] for mistake in caught.value.mistakes] == [
        "epochs: 010 would be read as 8; write a number without a leading 0",
        "filters: 012 would be read as 10; write a number without a leading 0",
        "filters: 014 would be read as 12; write a number without a leading 0",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "a: 0", "a: 10", "a: 0.5", "a: 1.0e-7", "a: -3", "# at 1:30, 010", "a: b:c", "seed: range(3)", "a: '010'",
        "a: see 010 and 1:30", "a: |\n  010\n  1:30",
    ],
)  # fmt: skip
def test_plain_numbers_and_words_are_no_traps(tmp_path: Path, line: str) -> None:
    (tmp_path / "option.yaml").write_text(line)
    read_yaml_text(tmp_path / "option.yaml")


@pytest.mark.parametrize("content", [b"# \xe4\na: 1\n", b"\x00\x05\x16\x07\x00\x02", b"a: \xff\xfe"])
def test_file_that_is_not_utf8_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "option.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"option\.yaml: is not plain YAML") as caught:
        read_yaml_text(tmp_path / "option.yaml")
    assert "\n" not in str(caught.value)


def test_shipped_options_hold_no_trap() -> None:
    for path in CONF.rglob("*.yaml"):
        read_yaml_text(path)
