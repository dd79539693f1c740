"""Execution: how long and how a config is trained, where it is mirrored, how many runs go side by side."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from experiments.errors import InputError
from experiments.ingredients.option import AsBefore, Count, NonNegative, Option, Positive
from experiments.ingredients.registry import CALLBACKS, METRICS, require_names

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
SlurmWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._,@+-]{0,199}$")]
# Options of sbatch that a sweep relies on, and those that have a key of their own.
OURS_OF_SBATCH = (
    "account", "array", "chdir", "clusters", "constraint", "cpus-per-task", "error", "export", "export-file", "gpus",
    "gres", "help", "hold", "input", "job-name", "mem", "no-requeue", "nodes", "ntasks", "open-mode", "output",
    "parsable", "partition", "requeue", "signal", "test-only", "time", "usage", "version", "wait", "wrap",
)  # fmt: skip


class Training(Option):
    """Length, batch, number format, threads and the strength of the determinism of one run."""

    epochs: Annotated[int, Field(ge=1, le=100_000)]  # every step of the run has its place in a schedule's array
    batch_size: Count
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    threads: Annotated[int, Field(ge=1, le=1024)] | None  # TensorFlow crashes when it asks for very many
    determinism: Literal["machine", "portable"]
    measure_training: Annotated[bool, AsBefore(False)]
    class_weights: Annotated[Literal["none", "balanced"], AsBefore("none")]
    metrics: Annotated[list[str], AsBefore([])]
    callbacks: Annotated[list[str], AsBefore([])]

    @field_validator("metrics", "callbacks")
    @classmethod
    def _are_registered(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if info.field_name == "metrics":
            return require_names(METRICS, names, "metric")
        return require_names(CALLBACKS, names, "callback")

    def require_images(self, images: int, name: str) -> None:
        """Refuses a batch that is larger than the training images of the data set `name`.

        Raises:
            InputError: it is.
        """
        if self.batch_size > images:
            rule = f"must be ≤ {images}, the training images of {name}"
            raise InputError(f"training.batch_size: {rule}, received {self.batch_size}")

    @model_validator(mode="after")
    def _portable_means_one_thread_and_float32(self) -> Self:
        if self.determinism == "portable" and self.threads not in (None, 1):
            raise ValueError(f"threads must be 1 (or null) where determinism is portable, received {self.threads}")
        if self.determinism == "portable" and self.precision != "float32":  # AVX2 kernels know no other
            raise ValueError(f"precision must be float32 where determinism is portable, received {self.precision}")
        return self


class MLflowTracking(Option):
    """A mirror of every run in MLflow."""

    name: Literal["mlflow"]
    experiment: Name
    log_model: bool


class NoTracking(Option):
    """Run directories only."""

    name: Literal["none"]


class SweepOptions(Option):
    """How `-m` carries out many runs, wherever that is; no part of a run. `title` names the sweep's directory.

    `until`, `margin`, `confidence` and `metric` say when a sweep has run enough, `jobs`, `keep` and `finalists` how far
    a search goes; they may change from start to start.
    """

    title: Name | None
    most_jobs: Count
    timeout_minutes: Positive | None
    fail_fast: bool
    reuse: Literal["auto", "loose", "never"]
    dry_run: bool
    until: Literal["all", "decided"]
    margin: NonNegative
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    metric: Literal["validation/accuracy", "validation/cross_entropy"]
    jobs: Count | None
    keep: Annotated[float, Field(gt=0, le=1)]
    finalists: Annotated[int, Field(ge=2)]  # a race needs two

    @field_validator("metric", mode="before")
    @classmethod
    def _decide_by_validation(cls, value: Any) -> Any:
        reasons = {"test": "the test images choose nothing", "train": "a network knows its training images by heart"}
        reason = reasons.get(str(value).partition("/")[0])
        if reason:
            raise ValueError(f"{reason}; valid: validation/accuracy, validation/cross_entropy, received {value!r}")
        return value


class LocalSweep(SweepOptions):
    """Runs are processes of this machine; `workers` of them side by side, None: as many as its cores or GPUs allow."""

    name: Literal["local"]
    workers: Count | None
    per_gpu: Count


class SlurmSweep(SweepOptions):
    """Runs are tasks of Slurm's job arrays; each value but the last goes to sbatch, None leaves it to the cluster."""

    name: Literal["slurm"]
    workers: None
    per_gpu: Literal[1]  # Slurm gives whole GPUs
    partition: SlurmWord | None
    account: SlurmWord | None
    time: Annotated[int, Field(ge=1, le=525_600)] | None  # minutes, a year
    cpus: Annotated[int, Field(ge=1, le=1024)]  # as training.threads
    memory: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}[KMGT]$")] | None
    gpus: Annotated[int, Field(ge=0, le=1024)]
    constraint: Annotated[str, Field(pattern=r"^[A-Za-z0-9(\[][A-Za-z0-9_.,:&|*()\[\]-]{0,199}$")] | None
    cpu_class: Literal["same"] | None
    array_parallelism: Count | None
    signal_seconds: Annotated[int, Field(ge=1, le=65_535)]  # Slurm's own most
    setup: list[Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]]
    arguments: list[Annotated[str, Field(pattern=r"^--[a-z][a-z0-9-]*(=[^\x00-\x1f\x7f]*)?$")]]
    wait: bool

    @field_validator("workers", mode="before")
    @classmethod
    def _workers_are_local(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError(f"must be null: sweep.array_parallelism says how many run on Slurm, received {value!r}")
        return value

    @field_validator("arguments")
    @classmethod
    def _leave_ours_alone(cls, arguments: list[str]) -> list[str]:
        for argument in arguments:
            name = argument[2:].partition("=")[0]
            if any(ours.startswith(name) for ours in OURS_OF_SBATCH):  # sbatch takes beginnings, too
                raise ValueError(f"must not have --{name}, which the sweep sets itself, received {argument!r}")
        return arguments

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        if self.cpu_class == "same" and self.constraint is None:
            raise ValueError(
                "cpu_class: same needs constraint, a feature of one class of nodes; sinfo -o %f tells them"
            )
        if self.time is not None and self.signal_seconds >= 60 * self.time:
            rule = f"must be less than the {60 * self.time} seconds of time"
            raise ValueError(f"signal_seconds: {rule}, received {self.signal_seconds}")
        return self


class RaySweep(SweepOptions):
    """Runs are tasks of a Ray cluster; `workers` of them at a time, None: as many as its nodes hold.

    `address` is the cluster's; None: `$RAY_ADDRESS`, or a Ray of this machine alone, which ends with the sweep. What
    one job gets of a node: `cpus`, which are its threads too, `gpus`, `memory` in GB, and resources of the user's own.
    """

    name: Literal["ray"]
    workers: Count | None
    per_gpu: Literal[1]  # a part of a GPU is gpus=0.5
    address: Annotated[str, Field(min_length=1)] | None
    cpus: Annotated[int, Field(ge=1, le=1024)]  # as training.threads
    gpus: NonNegative
    memory: Positive | None
    resources: dict[str, Positive] | None

    @field_validator("resources")
    @classmethod
    def _have_names_of_their_own(cls, resources: dict[str, float] | None) -> dict[str, float] | None:
        for name in resources or ():
            if name.lower() in ("cpu", "gpu", "memory", "object_store_memory"):
                raise ValueError(f"must not have {name}: sweep.cpus, sweep.gpus and sweep.memory say that")
        return resources


Sweep = Annotated[LocalSweep | SlurmSweep | RaySweep, Field(discriminator="name")]
Tracking = Annotated[MLflowTracking | NoTracking, Field(discriminator="name")]
