"""The rooms of CONTRIBUTING.md: which imports which, and who knows what PyTorch does not publish."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add("")
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets):
            found |= {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)}
    return found


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that use what other packages do not publish, and how.

    That is to import a module or name with an underscore from one of them; or to ask an object, by a dot or in a string
    given to getattr and its like, for an underscore attribute that this module gives to nothing. Operators' names
    (``torch.ops.aten._softmax``) are public, and so are those of named tuples.
    """
    own = defined(tree) | NAMED_TUPLES
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in (prefix + alias.name for alias in node.names):
                if name.partition(".")[0] in OTHERS and any(map(private, name.split("."))):
                    yield node.lineno, f"import {name}"
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            path = path_of(node)
            if not {"aten", "prims", "ops"} & set(path[:-1]):
                yield node.lineno, ".".join(path)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr"):
                names = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
                yield from ((node.lineno, f"{node.func.id} {n}") for n in names if private(n) and n not in own)


@pytest.mark.parametrize("file", sorted(FILES))
def test_private_names_of_other_packages_are_in_one_module(file: str) -> None:
    found = [(line, name) for line, name in private_names(FILES[file]) if not (file.startswith("operators/") and fact(name))]
    assert bool(found) == (file == INTERNALS), f"{file}: {found}"


def fact(name: str) -> bool:
    return re.split(r"[. ]", name)[-1] in FACTS
