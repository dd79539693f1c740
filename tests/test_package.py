"""What the package says of itself, and what its wheel holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BOUNDED = ("tensorflow", "keras", "hydra-core", "omegaconf", "mlflow", "matplotlib", "pydantic", "scikit-learn")


def test_wheel_holds_conf_and_types_and_licence(tmp_path: Path) -> None:
    """Built by the backend alone, which needs no network."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert held >= {"experiments/py.typed", "hydra_plugins/experiments_local.py"}
    assert any(name.endswith("licenses/LICENSE") for name in held)
    for folder, inside in (("conf", "experiments/conf"), ("src/experiments", "experiments")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert held >= {f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" for path in files}


def test_every_bound_names_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    bounded = re.findall(r'^    # .+\n    "([\w-]+)>=[\d.]+,<[\d.]+",$', text, re.MULTILINE)
    assert tuple(bounded) == BOUNDED
    assert sum(",<" in dependency for dependency in PROJECT["dependencies"]) == len(BOUNDED)


def test_parts_that_a_bound_is_for_are_still_used() -> None:
    """Files that the comments of `pyproject.toml` name."""
    comments = re.findall(r"^    # (.+)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    named = set(re.findall(r"[\w/]+\.py", " ".join(comments)))
    assert named
    assert [name for name in sorted(named) if not (ROOT / "src" / "experiments" / name).exists()] == []


def test_versions_and_licence_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", changes, re.MULTILINE)[0]
    assert newest == (PROJECT["version"], citation["date-released"])
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")


def test_pinned_versions_are_inside_the_bounds() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().lower().splitlines() if "==" in line
    )
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


@pytest.mark.parametrize("extra", ["ray", "server"])
def test_extras_are_pinned_in_a_file_of_their_own(extra: str) -> None:
    lines = (ROOT / f"constraints-{extra}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        assert requirement.extras or requirement.specifier.contains(pinned[requirement.name]), requirement
