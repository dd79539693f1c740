"""What a run ran on: code, packages, machine. Each gatherer stands alone and may say "not available"."""

from __future__ import annotations

import difflib
import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.upgrades import FORMAT, newest

PACKAGE = Path(__file__).resolve().parents[1]
NOT_AVAILABLE = "not available"
# Packages whose version can change a result or its reading.
PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "hydra-core",
    "omegaconf",
    "mlflow",
    "pydantic",
)
IDENTITY_PACKAGES = ("tensorflow", "keras", "numpy")
# Beginnings of environment variables that can change what TensorFlow, oneDNN, CUDA or NumPy computes. `TF_` alone would
# take in Terraform's, secrets among them.
VARIABLE_PREFIXES = (
    "TF_ENABLE_", "TF_DISABLE_", "TF_XLA_", "TF_NUM_", "TF_CUDNN_", "TF_CUBLAS_", "TF_DETERMINISTIC_", "TF_GPU_",
    "TF_FORCE_", "TF_USE_", "TF_MKL_", "TF_ONEDNN_", "TF_OVERRIDE_", "ONEDNN_", "DNNL_", "OMP_", "MKL_", "KMP_",
    "XLA_", "CUDA_", "CUBLAS_", "NVIDIA_TF32_", "KERAS_", "OPENBLAS_", "NPY_",
)  # fmt: skip
# Set by libraries while they are imported, and by our commands for NumPy's products, of which no training has any.
WITHOUT_EFFECT = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "OPENBLAS_NUM_THREADS")
# Sources that take part in making numbers; what draws, compares, plans or talks does not.
TAKES_PART = ("config.py", "runner.py", "ingredients/", "training/", "results/evaluation.py")
TAKES_NO_PART = ("training/interruption.py", "training/progress.py")  # though they stand there
# Variables that git sets in hooks: they name the repository of the hook.
OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
ISA_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def gather(
    *,
    threads: int,
    dataset_digest: str,
    config: Mapping[str, Any] | None = None,
    own_code: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Everything that `environment.json` holds.

    `config` is what can change the result, flat: `config.yaml` may be edited later, and this tells that it was.

    Args:
        threads: of the training, 1 or more.
        dataset_digest: SHA-256 (hex), see `ImageData.digest`.
        config: dotted key → plain value; None: nothing is saved of it.
        own_code: what is known of the user's own code, see `own_code.facts_of`; None: there is none.
        variables: of the environment; those that `matter` picks are kept.
    """
    return {
        FORMAT: newest("environment"),
        "config": dict(config or {}),
        "code": {
            "commit": commit(),
            "dirty": bool(code_diff()),
            "digest": code_digest(),
            "sources_digest": sources_digest(),
            "files": {name: digest[:16] for name, digest in _files().items()},
            **({"own": dict(own_code)} if own_code else {}),
        },
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "host": socket.gethostname(),
        "cpu": cpu(),
        "gpus": gpus(),
        "cores": os.cpu_count(),
        "threads": threads,
        "variables": matter(variables),
        "dataset_digest": dataset_digest,
    }


def commit() -> str:
    """The commit of the checkout that the package is in; not available where there is none."""
    return _git("rev-parse", "HEAD")


def matter(variables: Mapping[str, str]) -> dict[str, str]:
    """Those environment variables that can change a result."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if name.startswith(VARIABLE_PREFIXES) and name not in WITHOUT_EFFECT
    }


@cache
def code_digest() -> str:
    """SHA-256 (hex) over the package's Python sources, names and bytes, in the order of their names."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def sources_digest() -> str:
    """SHA-256 (hex) over the sources that take part in making numbers: runs that share it have the same code."""
    taking_part = {name: digest for name, digest in _files().items() if takes_part(name)}
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in taking_part.items()).encode()).hexdigest()


def takes_part(name: str) -> bool:
    """Whether a source of this package, as `training/loop.py`, can change the numbers of a run."""
    return name.startswith(TAKES_PART) and name not in TAKES_NO_PART


@cache
def _files() -> dict[str, str]:
    return {p.relative_to(PACKAGE).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in _sources()}


def _sources() -> list[Path]:
    """Without the hidden files, and folders, that editors leave."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name[0] != "." and path.is_file())


@cache
def code_diff() -> str:
    """What the checkout's `src` and `conf` differ in from the commit, new files too; empty where there is no git."""
    diff = _git("diff", "HEAD", "--", "src", "conf")
    if diff == NOT_AVAILABLE:
        return ""
    new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", "src", "conf").split("\0")
    return "\n".join([diff, *(addition(name, PACKAGE.parents[1] / name) for name in new if name)]).strip("\n")


def addition(name: str, path: Path) -> str:
    """The diff that makes a file which git does not know."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = [NOT_AVAILABLE]
    return "\n".join(difflib.unified_diff([], lines, "/dev/null", f"b/{name}", lineterm=""))


def versions() -> dict[str, str]:
    """The versions that are part of a finished run's identity."""
    return {name: _version(name) for name in IDENTITY_PACKAGES}


@cache
def cpu() -> dict[str, Any]:
    """Model name and the instruction sets that kernels are chosen by."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"model": platform.processor() or NOT_AVAILABLE, "isa": NOT_AVAILABLE}
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    model = fields.get("model name", NOT_AVAILABLE)
    return {"model": model, "isa": [flag for flag in ISA_FLAGS if flag in flags]}


@cache
def gpus() -> list[str]:
    """Models of the NVIDIA devices, as their driver names them; nobody has to import TensorFlow to know."""
    found: list[str] = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        found.append(fields.get("Model", NOT_AVAILABLE).strip())
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_AVAILABLE


@cache
def _git(*arguments: str) -> str:
    """What git says in the checkout; not available where the package is no part of the repository around it.

    An environment may lie inside a user's own repository, whose commit says nothing about this code.
    """
    checkout = PACKAGE.parents[1]
    is_ours = git(checkout, "ls-files", "--", str(PACKAGE)) not in ("", NOT_AVAILABLE)
    return git(checkout, *arguments) if is_ours else NOT_AVAILABLE


def git(folder: Path, *arguments: str) -> str:
    """What git says in a folder; not available where there is no repository, or no git."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
            env={name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY},
            capture_output=True, text=True, errors="replace", timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return NOT_AVAILABLE
    return done.stdout.strip("\n")
