"""What two runs ran on, side by side: the differences that can explain other results, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from experiments.config import fill_in_flat
from experiments.gpus import VARIABLE, hides_all
from experiments.results import files
from experiments.results.environment import IDENTITY_PACKAGES, NOT_AVAILABLE, takes_part

# In the order of how surely each changes a result.
Kind = Literal["unknown", "config", "data", "resumed", "threads", "code", "package", "gpu", "cpu", "variable", "system"]
LABELS = ("regularization.name",)  # of presets, whose values stand beside them
# Variables of libraries that take no part in a training: TensorFlow has threads and kernels of its own.
ELSEWHERE: tuple[str, ...] = ("OMP_", "MKL_", "KMP_", "OPENBLAS_")
OF_GPUS = ("CUDA_", "CUBLAS_", "NVIDIA_", "TF_CUDNN_", "TF_CUBLAS_", "TF_GPU_")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Cause:
    """One thing that differs. `likely` where it is known to be able to change a result."""

    kind: Kind
    text: str
    likely: bool = True


def find_causes(then: Facts, now: Facts) -> list[Cause]:
    """All differences between two `environment.json`, ranked."""
    if not then:
        return [Cause("unknown", "environment.json of the original is missing: what it ran on is not known")]
    found = [cause for finder in (_config, _data, _resumed, _threads, _code, _packages, _machine, _variables, _system)
             for cause in finder(then, now)]  # fmt: skip
    order = get_args(Kind)
    return sorted(found, key=lambda cause: (not cause.likely, order.index(cause.kind)))


def _config(then: Facts, now: Facts) -> Iterator[Cause]:
    if not _part(then, "config"):
        return  # gathered for no run
    before, after = (fill_in_flat(_part(facts, "config")) for facts in (then, now))
    for key in sorted({*before, *after}.difference(LABELS)):
        if before.get(key) != after.get(key):
            values = f"{_value(before, key)} then, {_value(after, key)} now"
            yield Cause("config", f"config: {key} {values} (config.yaml was changed after the run)")


def _data(then: Facts, now: Facts) -> Iterator[Cause]:
    before, after = str(then.get("dataset_digest")), str(now.get("dataset_digest"))
    if before != after:
        digests = f"SHA-256 {before[:12]}… then, {after[:12]}… now"
        yield Cause("data", f"data: the images or labels are not the same ({digests})")


def changes_before(facts: Facts) -> list[str]:
    """What had changed where a run went on, as its `environment.json` tells."""
    return _words(facts, "resumed")


def _resumed(then: Facts, now: Facts) -> Iterator[Cause]:
    del now
    for text in changes_before(then):
        yield Cause("resumed", f"resumed: the original was interrupted, and went on after a change ({text})")


def _threads(then: Facts, now: Facts) -> Iterator[Cause]:
    if then.get("threads") != now.get("threads"):
        yield Cause("threads", f"threads: {_value(then, 'threads')} then, {_value(now, 'threads')} now")


def _code(then: Facts, now: Facts) -> Iterator[Cause]:
    before, after = _part(then, "code"), _part(now, "code")
    then_own, now_own = _part(before, "own"), _part(after, "own")
    if changed := _changed(_part(then_own, "files"), _part(now_own, "files")):
        where = _commits(then_own, now_own, files.OWN_DIFF)
        yield Cause("code", f"your own code: {_list(changed)} changed ({where})")
    if before.get("digest") == after.get("digest"):
        return
    changed = _changed(_part(before, "files"), _part(after, "files"))
    where = _commits(before, after, files.CODE_DIFF)
    taking_part = [name for name in changed if takes_part(name)]
    if taking_part or not changed:
        yield Cause("code", f"code: {_list(taking_part) or 'the sources'} changed ({where})")
    if others := [name for name in changed if name not in taking_part]:
        yield Cause("code", f"code: {_list(others)} changed", likely=False)


def _commits(before: Facts, after: Facts, diff: str) -> str:
    commits = [str(code.get("commit"))[:12] for code in (before, after)]
    if {NOT_AVAILABLE, None}.intersection((before.get("commit"), after.get("commit"))):
        return "not under git"
    if commits[0] == commits[1]:
        return f"commit {commits[0]} both times; see {diff} of both runs"
    return f"commit {commits[0]} then, {commits[1]} now"


def _packages(then: Facts, now: Facts) -> Iterator[Cause]:
    before, after = _part(then, "packages"), _part(now, "packages")
    for name in _changed(before, after):
        versions = f"{_value(before, name)} then, {_value(after, name)} now"
        yield Cause("package", f"package: {name} {versions}", likely=name in IDENTITY_PACKAGES)


def _machine(then: Facts, now: Facts) -> Iterator[Cause]:
    likely = _part(now, "config").get("training.determinism") != "portable"
    devices = [_devices(facts, trained_on=_know_gpu(then, now)) for facts in (then, now)]
    if devices[0] != devices[1]:
        yield Cause("gpu", f"GPU: {devices[0]} then, {devices[1]} now", likely)
    before, after = _part(then, "cpu"), _part(now, "cpu")
    lost, gained = (_list(_missing(*pair, "isa")) for pair in ((before, after), (after, before)))
    if lost or gained:
        said = [f"has no {lost} now" if lost else "", f"had no {gained} then" if gained else ""]
        yield Cause("cpu", f"CPU: {'; '.join(filter(None, said))}", likely)
    if before.get("model") != after.get("model"):
        yield Cause("cpu", f"CPU: {_value(before, 'model')} then, {_value(after, 'model')} now", likely)


def _know_gpu(then: Facts, now: Facts) -> bool:
    """Whether both tell which GPU they trained on; older files only list those of the machine."""
    return "gpu" in then and "gpu" in now


def _devices(facts: Facts, *, trained_on: bool) -> str:
    if trained_on:
        return str(facts["gpu"] or "none")
    return _list(_words(facts, "gpus")) or "none"


def _shows_the_same(then: Facts, now: Facts) -> bool:
    """Whether all GPUs of both machines are of one model, and both processes saw any, or none."""
    shown = [not hides_all(_part(facts, "variables").get(VARIABLE)) for facts in (then, now)]
    return shown[0] == shown[1] and len({*_words(then, "gpus"), *_words(now, "gpus")}) == 1


def _variables(then: Facts, now: Facts) -> Iterator[Cause]:
    before, after = _part(then, "variables"), _part(now, "variables")
    elsewhere = ELSEWHERE if _words(then, "gpus") or _words(now, "gpus") else (*ELSEWHERE, *OF_GPUS)
    if _know_gpu(then, now) or _shows_the_same(then, now):  # which of several equal ones it was takes no part
        elsewhere = (*elsewhere, VARIABLE)
    for name in _changed(before, after):
        values = f"{_value(before, name)} then, {_value(after, name)} now"
        yield Cause("variable", f"variable: {name} {values}", likely=not name.startswith(elsewhere))


def _system(then: Facts, now: Facts) -> Iterator[Cause]:
    for name in ("python", "system"):
        if then.get(name) != now.get(name):
            yield Cause("system", f"{name}: {_value(then, name)} then, {_value(now, name)} now", likely=False)


def _part(facts: Facts, name: str) -> Facts:
    part = facts.get(name)
    return part if isinstance(part, dict) else {}


def _changed(before: Facts, after: Facts) -> list[str]:
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _missing(has: Facts, lacks: Facts, name: str) -> list[str]:
    return [word for word in _words(has, name) if word not in _words(lacks, name)]


def _words(facts: Facts, name: str) -> list[str]:
    words = facts.get(name, [])
    return [str(word) for word in words] if isinstance(words, list) else [str(words)]


def _value(facts: Facts, key: str) -> str:
    return str(facts[key]) if key in facts else "not there"


def _list(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
