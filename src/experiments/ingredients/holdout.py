"""Which pictures of one tree are held out for testing: by a seeded hash, so that more pictures move none of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.bounded import PICTURE_BYTES, open_file
from experiments.errors import InputError

GROUP_SECONDS = 20  # the longest that matching may take: some expressions never end
# A process of its own can be stopped. Reads [expression, [path, …]], writes [group or null, …].
FIND_GROUPS = """
import json, re, sys
expression, paths = json.load(sys.stdin)
found = map(re.compile(expression).search, paths)
json.dump([match and (match[1] if match.re.groups else match[0]) for match in found], sys.stdout)
"""


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of the content of a picture's file.

    Raises:
        InputError: it cannot be read, or is larger than pictures are.
    """
    with open_file(path, PICTURE_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_groups(expression: str, paths: Sequence[str]) -> list[str]:
    """The group of each path: what the first parenthesis matches, or the whole expression where it has none.

    Raises:
        InputError: it is no regular expression, does not match every path, or takes too long.
    """
    command = [sys.executable, "-I", "-c", FIND_GROUPS]
    question = json.dumps([expression, list(paths)])
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=GROUP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"dataset.group_by: takes more than {GROUP_SECONDS} s, received {expression!r}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["failed"])[-1].removeprefix("re.error: ")
        raise InputError(f"dataset.group_by: must be a regular expression ({reason}), received {expression!r}")
    groups: list[str | None] = json.loads(done.stdout)
    missed = [path for path, group in zip(paths, groups, strict=True) if group is None]
    if missed:
        rule = f"must match the path of every picture, not of {len(missed):,}, as {missed[0]}"
        raise InputError(f"dataset.group_by: {rule}; received {expression!r}")
    return [group for group in groups if group is not None]


def hold_out(units: Sequence[str], labels: Sequence[int], fraction: float, salt: str) -> list[bool]:
    """Which of the pictures are held out.

    A unit is held out where its hash, as a fraction of the largest, is below `fraction`; so each class has about that
    share, and a unit stays on its side whatever is added. Only where a class would be missing on one side, the unit of
    it that is nearest to the other side goes there.

    Args:
        units: what stays together, one a picture: its group, or the digest of its content.
        labels: the class of each picture.
        fraction: how much is held out, in (0, 1).
        salt: makes another choice, as a seed does.
    """
    hashes = {unit: hashlib.sha256(f"{salt} {unit}".encode()).digest()[:8] for unit in units}
    threshold = int(fraction * 2**64).to_bytes(8, "big")
    held = {unit for unit, value in hashes.items() if value < threshold}
    by_class = _units_by_class(units, labels)
    for members in by_class.values():
        if not held & members:
            held.add(min(members, key=lambda unit: hashes[unit]))
    for members in by_class.values():
        if members <= held:
            held.remove(max(members, key=lambda unit: hashes[unit]))
    return [unit in held for unit in units]


def _units_by_class(units: Iterable[str], labels: Iterable[int]) -> Mapping[int, set[str]]:
    found: dict[int, set[str]] = {}
    for unit, label in zip(units, labels, strict=True):
        found.setdefault(label, set()).add(unit)
    return found
