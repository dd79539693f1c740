from pathlib import Path

import pytest

from experiments.conf import CONF, refuse_number_traps
from experiments.errors import InputError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("epochs: 010", "epochs: 010 would be read as 8"),
        ("  rate: 1:30  # minutes", "rate: 1:30 would be read as 90"),
        ("filters: [032, 64]", "filters: 032 would be read as 26"),
        ("- 0_17", "0_17 would be read as 15"),
    ],
)
def test_number_trap_is_named_with_its_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "option.yaml").write_text(f"# header\n{line}\n")
    with pytest.raises(InputError, match=r"option\.yaml:2: ") as caught:
        refuse_number_traps(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "line", ["a: 0", "a: 10", "a: 0.5", "a: 1.0e-7", "a: -3", "# at 1:30, 010", "a: b:c", "seed: range(3)"]
)
def test_plain_numbers_and_words_are_no_traps(tmp_path: Path, line: str) -> None:
    (tmp_path / "option.yaml").write_text(line)
    refuse_number_traps(tmp_path)


def test_shipped_options_hold_no_trap() -> None:
    refuse_number_traps(CONF)
