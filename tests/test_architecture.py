"""What the code may import and how it may look: imports run one way, a big library has one door, all is short."""

from __future__ import annotations

import ast
import statistics
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import experiments

ROOT = Path(experiments.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.stat().st_size)

# From the bottom up. A module imports from its own layer and from those below it.
LAYERS = (
    ("errors", "bounded", "archives", "directories", "cgroups", "gpus", "screen", "console"),
    ("conf", "plain_yaml", "ingredients", "upgrades"),
    ("config_sources", "hydra_loader", "project"),
    ("mistakes",),
    ("config",),
    ("options",),
    ("results",),
    ("training",),
    ("comparison",),
    ("recording", "runner"),
    ("sweeps", "reproduction"),
    ("unsealing",),
    ("command_line",),
    ("entrance", "init", "run", "reproduce", "compare", "figures", "ui", "status", "sync", "unseal", "__main__"),
)
PEERS = ("sweeps", "reproduction")  # rooms on one floor that know nothing of each other
ENTRANCES = {"run", "reproduce", "compare", "figures", "ui", "status", "sync", "unseal"}
DOORS = {  # which modules may import a big library at all
    "matplotlib": ("results/plots/",),
    "mlflow": ("results/tracking", "sweeps/executors/preload.py"),
    "hydra": ("run.py", "command_line.py", "hydra_loader.py", "config_sources.py", "config.py", "sweeps/"),
    "omegaconf": ("run.py", "hydra_loader.py", "config_sources.py", "config.py", "sweeps/"),
    "ray": ("sweeps/executors/ray_driver.py",),
    "sklearn": ("ingredients/digits.py",),
    "yaml": (
        "plain_yaml.py",
        "config_sources.py",
        "config.py",
        "results/records.py",
        "comparison/",
        "reproduction/",
        "sweeps/",
    ),
}
# TensorFlow starts where a run trains, and in the server that a sweep's workers are forked from.
STARTS_TENSORFLOW = (
    "ingredients/normalisation.py", "training/batches.py", "training/capacity.py", "training/loop.py",
    "training/pixels.py", "training/trial.py", "sweeps/executors/preload.py",
)  # fmt: skip
LONGEST_FILE, LONGEST_OF_ALL = 200, 320  # lines of code
LONGER_FILES = {  # and why
    "results/evaluation.py": "every number about predictions and curves, none of which is of use alone",
    "results/records.py": "the one place that knows the files of a run directory and their formats",
    "results/tracking.py": "the one door to mlflow, for runs and for sweeps",
}
MANY_ARGUMENTS = 3  # from which on they are documented, one by one
UNDOCUMENTED = {  # functions without the sections for arguments and errors, and why
    "entrance.py:Parser.error": "argparse's; its one sentence names the error",
    "hydra_loader.py:Loader.load_configuration": "Hydra's, with Hydra's arguments",
    "ingredients/decoding.py:decode": "catches the error that it raises",
    "ingredients/normalisation.py:BatchNormalization.call": "Keras', with Keras' arguments",
}
LONGEST_FUNCTION = 60  # lines of code of the one story; see also the test of the others


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, at_import: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; only those that happen when it is imported itself, if asked."""
    nodes: list[ast.AST] = [tree_of(path)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)) or (
            at_import and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            continue
        nodes.extend(ast.iter_child_nodes(node))


def room_of(dotted: str) -> str | None:
    """`experiments.results.records.Record` → `results`; None for what is not ours."""
    first, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if first == "experiments" else None


def layer_of(room: str) -> int:
    found = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    assert found, f"{room}: say in LAYERS where it stands"
    return found[0]


@cache
def code_lines(path: Path) -> frozenset[int]:
    """Numbers of the lines that hold code: no blank ones, no comments, no docstrings."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in (*skipped, tokenize.ENCODING):
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return frozenset(lines)


def functions() -> Iterator[tuple[str, int]]:
    """Every function with its lines of code."""
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                span = range(node.lineno, (node.end_lineno or 0) + 1)
                yield f"{name_of(path)}:{node.name}", len(code_lines(path).intersection(span))


def public_functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method without a leading underscore, as `file.py:Class.name`."""
    for path in FILES:
        nodes: list[tuple[str, ast.AST]] = [("", tree_of(path))]
        while nodes:
            outer, node = nodes.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield f"{name_of(path)}:{outer}{node.name}", node
            inner = f"{outer}{node.name}." if isinstance(node, ast.ClassDef) else outer
            nodes.extend((inner, child) for child in ast.iter_child_nodes(node))


def raises(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether there is a `raise` in a function, those of the functions inside it not counted."""
    nodes: list[ast.AST] = [*function.body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            nodes.extend(ast.iter_child_nodes(node))
    return False


def missing_sections(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The sections that a function's docstring must have and has not."""
    given = function.args
    arguments = [a for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]
    needed = {"Args:": len(arguments) >= MANY_ARGUMENTS, "Raises:": raises(function)}
    lines = [line.strip() for line in (ast.get_docstring(function) or "").splitlines()]
    return [section for section, is_needed in needed.items() if is_needed and section not in lines]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = room_of(f"experiments.{path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}")
    assert own
    if own == "__init__":
        return
    for dotted in imports(path):
        room = room_of(dotted)
        if room is None or room == own:
            continue
        assert layer_of(room) <= layer_of(own), f"{own} must not know {dotted}"
        assert not {room, own} <= set(PEERS), f"{own} must not know {dotted} beside it"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "ingredients"], ids=name_of)
def test_ingredients_know_only_each_other_and_what_is_below(path: Path) -> None:
    below = {"errors", "bounded", "archives", "directories"}
    assert {room_of(dotted) for dotted in imports(path)} <= {None, "ingredients"} | below


def test_nobody_imports_an_entrance() -> None:
    for path in FILES:
        rooms = {room_of(dotted) for dotted in imports(path)}
        assert not rooms & ENTRANCES, name_of(path)


@pytest.mark.parametrize("library", DOORS)
def test_big_library_has_its_door(library: str) -> None:
    for path in FILES:
        if library in {dotted.partition(".")[0] for dotted in imports(path)}:
            assert name_of(path).startswith(DOORS[library]), f"{name_of(path)} imports {library}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_training_starts_tensorflow_when_it_is_imported(path: Path) -> None:
    libraries = {dotted.partition(".")[0] for dotted in imports(path, at_import=True)}
    assert not libraries & {"tensorflow", "keras"} or name_of(path) in STARTS_TENSORFLOW


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_source_has_no_assert_no_bare_except_and_never_prints(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), where
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), where
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not is_print, f"{where}: screen.say prints"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_is_short_enough_to_read(path: Path) -> None:
    assert len(code_lines(path)) <= (LONGEST_OF_ALL if name_of(path) in LONGER_FILES else LONGEST_FILE)


def test_functions_are_short() -> None:
    """Median ≤ 10 lines of code, nine in ten ≤ 30, one story above 40."""
    lengths = dict(functions())
    assert statistics.median(lengths.values()) <= 10
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 30
    assert [name for name, length in lengths.items() if length > LONGEST_FUNCTION] == []
    assert len([name for name, length in lengths.items() if length > 40]) <= 1


def test_public_functions_document_their_arguments_and_errors() -> None:
    """Three arguments or more have `Args:`, a `raise` has `Raises:`; an exception that needs none is no exception."""
    missing = {name: found for name, function in public_functions() if (found := missing_sections(function))}
    assert {name: found for name, found in missing.items() if name not in UNDOCUMENTED} == {}
    assert set(UNDOCUMENTED) <= set(missing), "no such function, or it has its sections"


def test_layers_name_only_what_exists() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert set(STARTS_TENSORFLOW) <= {name_of(path) for path in FILES}
    assert set(LONGER_FILES) <= {name_of(path) for path in FILES}
    assert rooms - {"__init__"} <= {room for layer in LAYERS for room in layer}
