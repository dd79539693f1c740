from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from experiments.results import environment
from experiments.results.environment import NOT_AVAILABLE


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """The gatherers remember; each test begins and ends without memories."""
    gatherers = (
        environment.code_digest, environment.code_diff, environment.cpu, environment._git, environment._files,
        environment.sources_digest,
    )  # fmt: skip
    for gatherer in gatherers:
        gatherer.cache_clear()
    yield
    for gatherer in gatherers:
        gatherer.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package and a conf folder, all committed."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("seed: 0\n")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(environment, "PACKAGE", package)
    return tmp_path


def test_facts_are_complete_and_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    facts = environment.gather(threads=3, dataset_digest="d" * 64)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["threads"] == 3
    assert facts["dataset_digest"] == "d" * 64
    assert facts["packages"]["numpy"] == metadata.version("numpy")
    assert facts["packages"].keys() >= {"tensorflow", "keras", "hydra-core", "mlflow", "pydantic"}
    assert facts["variables"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "SECRET_TOKEN" not in facts["variables"]
    assert facts["code"]["digest"] == environment.code_digest()


def test_versions_are_those_of_the_identity() -> None:
    assert environment.versions() == {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}


def test_missing_package_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "IDENTITY_PACKAGES", ("numpy", "no-such-package"))
    assert environment.versions()["no-such-package"] == NOT_AVAILABLE


def test_code_digest_is_over_names_and_bytes(checkout: Path) -> None:
    assert environment.code_digest() == hashlib.sha256(b"a.py\0x = 1\n\0").hexdigest()


@pytest.mark.parametrize("change", ["edit", "add", "rename"])
def test_code_digest_notices_every_change(change: str, checkout: Path) -> None:
    before = environment.code_digest()
    environment.code_digest.cache_clear()
    source = checkout / "src" / "package" / "a.py"
    if change == "edit":
        source.write_text("x = 2\n")
    elif change == "add":
        source.with_name("b.py").write_text("")
    else:
        source.rename(source.with_name("b.py"))
    assert environment.code_digest() != before


def test_code_digest_ignores_what_is_no_code(checkout: Path) -> None:
    before = environment.code_digest()
    environment.code_digest.cache_clear()
    (checkout / "src" / "package" / "notes.txt").write_text("x")
    assert environment.code_digest() == before


def test_sources_digest_is_over_what_takes_part_in_making_numbers(checkout: Path) -> None:
    package = checkout / "src" / "package"
    for name in ("training/loop.py", "training/progress.py", "ingredients/models.py", "results/evaluation.py", "ui.py"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("x = 1\n")
    digests = []
    for changed in ("", "ui.py", "a.py", "training/progress.py", "training/loop.py", "ingredients/models.py"):
        if changed:
            (package / changed).write_text(f"# {changed}\n")
        environment._files.cache_clear()
        environment.sources_digest.cache_clear()
        digests.append(environment.sources_digest())
    assert digests[0] == digests[1] == digests[2] == digests[3]
    assert len(set(digests[3:])) == 3


def test_all_that_numbers_are_made_with_takes_part() -> None:
    """What these modules import is covered by the digest, or named here with the reason why it changes no number."""
    changes_none = {
        "errors.py": "messages",
        "bounded.py": "reads data whose digest the run key covers, or refuses them",
        "archives.py": "the same",
        "directories.py": "makes folders",
        "project.py": "imports the user's own modules, which have a digest of their own",
        "results/own_metrics.py": "asks functions of those modules",
        "cgroups.py": "counts cores; the threads that are used stand in the config",
        "gpus.py": "tells what is there",
        "mistakes.py": "messages",
        "upgrades.py": "the same of what is loaded",
        "recording.py": "writes down what was computed",
        "results/files.py": "the same",
        "results/records.py": "the same",
        "results/looks.py": "counts who looked",
        "results/lease_file.py": "tells which process owns a run",
        "results/states.py": "names",
        "results/environment.py": "tells what is there",
        "results/tracking_mirror.py": "copies what was computed",
        "results/drawing.py": "draws what was computed",
        "results/test_images.py": "the same",
        "plain_yaml.py": "what it reads is in the config, which the run key covers",
        "hydra_loader.py": "the same",
        "console.py": "shows",
        "training/progress.py": "draws a bar",
    }
    package = environment.PACKAGE
    sources = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    taking_part = {name: path for name, path in sources.items() if environment.takes_part(name)}
    assert {"training/loop.py", "runner.py", "ingredients/models.py", "results/evaluation.py"} <= taking_part.keys()
    assert not [name for name in taking_part if name.startswith(("sweeps/", "comparison/", "results/plots/"))]
    imported = {name for path in taking_part.values() for name in imported_by(path, sources)}
    assert imported - taking_part.keys() == changes_none.keys()


def imported_by(path: Path, sources: Collection[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments"):
            base = (node.module or "").removeprefix("experiments").strip(".").replace(".", "/")
            for name in (f"{base}.py", *(f"{base}/{alias.name}.py".lstrip("/") for alias in node.names)):
                if name in sources:
                    yield name
            if f"{base}/{node.names[0].name}/__init__.py".lstrip("/") in sources:
                yield f"{base}/{node.names[0].name}/__init__.py".lstrip("/")


def test_clean_checkout_has_its_commit_and_no_diff(checkout: Path) -> None:
    code = environment.gather(threads=1, dataset_digest="")["code"]
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert code["commit"] == head.stdout.strip()
    assert code["dirty"] is False
    assert environment.code_diff() == ""


def test_changed_code_and_config_are_in_the_diff(checkout: Path) -> None:
    (checkout / "src" / "package" / "a.py").write_text("x = 2\n")
    (checkout / "conf" / "config.yaml").write_text("seed: 1\n")
    (checkout / "elsewhere.txt").write_text("z\n")
    diff = environment.code_diff()
    assert "-x = 1\n+x = 2" in diff
    assert "-seed: 0\n+seed: 1" in diff
    assert environment.gather(threads=1, dataset_digest="")["code"]["dirty"] is True


def test_new_files_are_in_the_diff(checkout: Path) -> None:
    (checkout / "conf" / "new.yaml").write_text("seed: 1\n")
    assert "+++ b/conf/new.yaml\n@@ -0,0 +1 @@\n+seed: 1" in environment.code_diff()


def test_diff_that_is_no_utf_8_is_read(checkout: Path) -> None:
    (checkout / "src" / "package" / "a.py").write_bytes(b"# \xe9\nx = 1\n")
    assert "+# \ufffd" in environment.code_diff()


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "src" / "package")
    code = environment.gather(threads=1, dataset_digest="")["code"]
    assert code["commit"] == NOT_AVAILABLE
    assert code["dirty"] is False
    environment._git.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert environment._git("rev-parse", "HEAD") == NOT_AVAILABLE


@pytest.mark.parametrize("ignored", [True, False])
def test_package_in_the_repository_of_somebody_else_has_no_commit(
    ignored: bool, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As installed into an environment inside a user's own repository."""
    package = checkout / ".venv" / "lib" / "site-packages" / "experiments"
    package.mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n")
    (package.parents[1] / "src").mkdir()
    (package.parents[1] / "src" / "new.py").write_text("not ours\n")
    if ignored:
        (checkout / ".gitignore").write_text(".venv\n")
    monkeypatch.setattr(environment, "PACKAGE", package)
    code = environment.gather(threads=1, dataset_digest="")["code"]
    assert (code["commit"], code["dirty"]) == (NOT_AVAILABLE, False)
    assert environment.code_diff() == ""


def test_variables_of_git_lead_to_no_other_repository(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook of another repository."""
    other = tmp_path_factory.mktemp("other")
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    head = (checkout / ".git" / "HEAD").read_text().split()[-1]
    commit = (checkout / ".git" / head).read_text().strip()
    assert environment.gather(threads=1, dataset_digest="")["code"]["commit"] == commit


def test_cpu_is_told_by_model_and_instruction_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu sse4_2 avx avx2 fma\n"
    text = f"{first}\nprocessor\t: 1\nflags\t: x\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert environment.cpu() == {"model": "Some CPU @ 2 GHz", "isa": ["sse4_2", "avx", "avx2", "fma"]}


def test_unknown_cpu_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert environment.cpu()["isa"] == NOT_AVAILABLE


def test_files_that_editors_leave_in_the_sources_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("a")
    (tmp_path / ".#a.py").symlink_to("somebody@somewhere.1234")
    (tmp_path / "._a.py").write_bytes(b"\x00\xff")
    (tmp_path / "old.py").mkdir()
    assert environment._sources() == [tmp_path / "a.py"]
