"""YAML that somebody else may have written: plain values, no more than the text shows, every number as it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from experiments.bounded import CONFIG_BYTES, read_bytes
from experiments.errors import InputError

DEEPEST_YAML = 20  # levels; ours have 6 at most, and a parser dies of very many
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
OCTAL = re.compile(r"[+-]?0[0-7_]+")
SEXAGESIMAL = re.compile(r"[+-]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        InputError: as `read_yaml_text`, or it names a Python object.
    """
    text = read_yaml_text(path)
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise _not_plain(path, error) from None


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file, checked before anything is made of it.

    Raises:
        InputError: it cannot be read, is no YAML, would grow beyond its text (by aliases a few lines can mean more than
            any memory holds), or holds a number that YAML reads as another one; a line for each of those.
    """
    data = read_bytes(path, CONFIG_BYTES)
    try:
        _refuse_tricks(data)
        traps = list(_traps(yaml.compose(data, Loader=yaml.CSafeLoader)))
        text = data.decode("utf-8-sig")
    except (yaml.YAMLError, ValueError) as error:
        raise _not_plain(path, error) from None
    if traps:
        raise InputError(*(f"{path}:{trap}" for trap in traps))
    return text


def _not_plain(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is not plain YAML ({' '.join(str(error).split())})")


def _refuse_tricks(data: bytes) -> None:
    """Raises a `YAMLError` for what is YAML but no config."""
    depth = 0
    for event in yaml.parse(data, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"a config repeats nothing by alias, received *{event.anchor}")
        if depth > DEEPEST_YAML:
            raise yaml.YAMLError(f"a config is at most {DEEPEST_YAML} levels deep")


def _traps(node: yaml.Node | None, key: str = "") -> Iterator[str]:
    """The numbers that are not what they look like: YAML 1.1 reads `010` as 8 and `1:30` as 90."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _traps(name)
            yield from _traps(value, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _traps(value, key)
    elif isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS and (trap := _trap(node.value)):
        yield f"{node.start_mark.line + 1}: {f'{key}: ' if key else ''}{node.value} would be read as {trap}"


def _trap(value: str) -> str | None:
    if OCTAL.fullmatch(value):
        return f"{int(value.replace('_', ''), 8)}; write a number without a leading 0"
    if SEXAGESIMAL.fullmatch(value):
        parts = [float(part) for part in value.replace("_", "").split(":")]
        return f"{sum(part * 60**power for power, part in enumerate(reversed(parts))):g}; write it without colons"
    return None
