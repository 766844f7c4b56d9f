"""The rooms of CONTRIBUTING.md: which imports which, and who knows what PyTorch does not publish."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import foldproof

SOURCE = Path(foldproof.__file__).parent
ROOT = Path(__file__).parents[1]
FILES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}

INTERNALS = "torch_internals.py"
OTHERS = ("torch", "torchao", "executorch", "functorch", "onnx", "onnxscript", "onnxruntime", "openvino")
"""Packages whose private names are meant."""
FACTS = {"_schema", "_overloadname", "_op"}
"""Attributes of operators, which `foldproof.operators` alone reads."""
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def path_of(node: ast.AST) -> list[str]:
    """``a.b.c`` as its names; what is no name, such as a call, as a question mark."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "?", *reversed(names)]


def defined(tree: ast.AST) -> set[str]:
    """Names that a module gives to something: functions, classes, variables, attributes of its own objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr if path_of(node)[0] == "self" else "")
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets
        ):
            found |= {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)}
    return found


OWN = {file: defined(tree) for file, tree in FILES.items()}
OURS = set[str]().union(*OWN.values())


def private_names(file: str) -> Iterator[tuple[int, str]]:
    """Lines that use what other packages do not publish, and how.

    That is to import a module or name with an underscore from one of them; or to ask an object, by a dot or in a string
    given to getattr and its like, for an underscore attribute that this module gives to nothing (``self`` may have it
    from a class of ours). Names of operators (``torch.ops.aten._softmax``) and of named tuples' methods are public.
    """
    own = OWN[file] | NAMED_TUPLES
    for node in ast.walk(FILES[file]):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in (prefix + alias.name for alias in node.names):
                if name.partition(".")[0] in OTHERS and any(map(private, name.split("."))):
                    yield node.lineno, f"import {name}"
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            path = path_of(node)
            inherited = path[:-1] in (["self"], ["cls"]) and node.attr in OURS
            if not inherited and not {"aten", "prims", "ops", "sys"} & set(path[:-1]):
                yield node.lineno, ".".join(path)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
                names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
                yield from ((node.lineno, f"{node.func.id} {n}") for n in names if private(n) and n not in own)


@pytest.mark.parametrize("file", sorted(FILES))
def test_private_names_of_other_packages_are_in_one_module(file: str) -> None:
    found = [(line, name) for line, name in private_names(file) if not is_fact(name)]
    assert bool(found) == (file == INTERNALS), f"{file}: {found}"


def is_fact(name: str) -> bool:
    """True for an attribute of operators."""
    return re.split(r"[. ]", name)[-1] in FACTS


def test_each_private_name_has_a_line_that_says_what_would_replace_it() -> None:
    functions = [node for node in FILES[INTERNALS].body if isinstance(node, ast.FunctionDef) and not private(node.name)]
    assert functions
    assert not [f.name for f in functions if "Replaced by:" not in (ast.get_docstring(f) or "")]


def room_of(file: str) -> str:
    """The package, or the module beside the packages, that a file belongs to."""
    return file.partition("/")[0]


def imports_of(file: str) -> set[str]:
    """The files of foldproof that it imports, wherever in it, and for types only, too."""
    found = set()
    for node in ast.walk(FILES[file]):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for name in (name for name in names if name.partition(".")[0] == "foldproof"):
            parts = name.split(".")[1:]
            places = ["/".join(parts[:i]) for i in (len(parts), len(parts) - 1) if i >= 0]
            both = [f"{place}.py" for place in places if place] + [
                f"{place}/__init__.py".lstrip("/") for place in places
            ]
            found |= set([file for file in both if file in FILES][:1])
    return found - {file}


IMPORTS = {file: imports_of(file) for file in FILES}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TABLE, _, AFTER = CONTRIBUTING.partition("| package | holds |")[2].partition("\n\n")
ROOMS = [re.findall(r"`([\w.]+)`", row.split("|")[1]) for row in TABLE.splitlines() if row.startswith("| `")]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
BELOW = re.findall(r"`(\w+\.py)`", AFTER.partition("`import foldproof`")[0])
RANK |= {room: len(ROOMS) + rank for rank, room in enumerate(BELOW)}
FRONTS = {"__init__.py", "__main__.py", "pytest_plugin.py", "testing.py"}
"""Modules that people import or run: these may import every room, and none imports them."""
PUBLIC = {"cli"}
"""Rooms that use foldproof as people do."""


def test_contributing_knows_every_room() -> None:
    assert {room_of(file) for file in FILES} - FRONTS == RANK.keys()


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_room_imports_what_is_below_it(file: str) -> None:
    room = room_of(file)
    others = {other for other in IMPORTS[file] if room_of(other) != room}
    if room in FRONTS:
        return
    assert not {other for other in others if room_of(other) in FRONTS and room not in PUBLIC}
    above = {other for other in others if room_of(other) not in FRONTS and RANK[room_of(other)] <= RANK[room]}
    assert not above, f"{file} imports {above}, which CONTRIBUTING.md has above it"


def test_pages_are_made_of_json_alone() -> None:
    seen = {room_of(other) for file in FILES if room_of(file) == "report" for other in IMPORTS[file]}
    assert seen <= {"report", *BELOW}


def circles() -> list[set[str]]:
    """Groups of files that import each other, by way of others or not."""
    reached: dict[str, set[str]] = {}
    for file in FILES:
        pending, seen = [file], set[str]()
        while pending:
            new = IMPORTS[pending.pop()] - seen
            seen |= new
            pending += new
        reached[file] = seen
    groups = {frozenset({file} | {o for o in reached[file] if file in reached[o]}) for file in FILES}
    return [set(group) for group in groups if len(group) > 1]


def test_no_circles() -> None:
    assert circles() == []


OPENINGS = re.compile(r"(What|Whether|So many|How|Where|Which|Why|Whose)\b|As `")
"""Openings of relative clauses, where a verb or a noun says the same in fewer words."""


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, its classes and functions, and those below attributes and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "zoo", "benchmarks", "examples"])
def test_docstrings_begin_with_a_verb_or_a_noun(folder: str) -> None:
    paths = [path for path in sorted((ROOT / folder).rglob("*.py")) if "findings" not in path.parts]
    assert paths
    for path in paths:
        texts = docstrings(ast.parse(path.read_text("utf-8")))
        found = [(line, text.splitlines()[0]) for line, text in texts if OPENINGS.match(text)]
        assert not found, f"{path}: {found}"
