"""Definitions for a reproduction: the settings of a compiler as Python, including passes written by users."""

from __future__ import annotations

import ast
import copy
import enum
import inspect
import operator
import site
import symtable
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch

from foldproof.torch_internals import OpOverload, OpOverloadPacket, is_namespace

TAKEN: dict[str, Any] = {"F": torch.nn.functional, "copy": copy, "operator": operator}
"""Names that every reproduction defines itself."""
TAKEN |= dict.fromkeys(("Model", "model", "inputs", "got", "i", "t"))


class Unwritable(Exception):
    """The value can't be written as a few lines of Python: a closure, or an object with a state of its own."""


class Definitions:
    """Imports and definitions that expressions need, in order.

    Functions and classes of installed packages are imported. Others are defined by their source and by everything that
    the source refers to.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._made: dict[str, Any] = {"torch": torch, "nn": torch.nn}

    def write_expression(self, value: Any) -> str:
        """Return an expression for ``value``, valid after ``lines``.

        Raises:
            Unwritable: the value can't be written as Python.
        """
        if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
            self._define(value)
            return value.__name__
        if isinstance(value, enum.Enum):
            return f"{self.write_expression(type(value))}.{value.name}"
        if isinstance(value, (torch.dtype, OpOverload, OpOverloadPacket)):
            return str(value) if isinstance(value, torch.dtype) else f"torch.ops.{value}"
        try:
            if ast.literal_eval(repr(value)) == value:
                return repr(value)
        except (ValueError, SyntaxError):
            pass
        plain = not any("__new__" in vars(c) for c in type(value).__mro__[:-1])
        if plain and getattr(value, "__dict__", None) == {}:
            return f"{self.write_expression(type(value))}()"
        raise Unwritable(f"{value!r} can't be written in a line of Python")

    def _define(self, value: Any) -> None:
        name = value.__name__
        if not self._is_new(name, value):
            return
        module = inspect.getmodule(value)
        if module is not None and _is_installed(module) and getattr(module, name, None) is value:
            if module.__name__ != "builtins":
                self.lines.append(f"from {module.__name__} import {name}")
            return
        try:
            source = textwrap.dedent(inspect.getsource(value)).rstrip()
        except (OSError, TypeError):
            raise Unwritable(f"{name} has no source") from None
        if not source.startswith(("def ", "class ", "@")) or getattr(value, "__closure__", None):
            raise Unwritable(f"{name} is a lambda or a closure")
        known = value.__globals__ if isinstance(value, FunctionType) else vars(module)
        for other in _list_globals(symtable.symtable(source, "", "exec")):
            if other in known and known[other] is not value:
                self._name(other, known[other])
        self.lines += source.splitlines()

    def _name(self, name: str, value: Any) -> None:
        """Bind ``value`` to the name by which the source refers to it."""
        if getattr(value, "__name__", None) == name and not isinstance(value, ModuleType):
            self._define(value)
        elif self._is_new(name, value):
            if not isinstance(value, ModuleType):
                self.lines.append(f"{name} = {self.write_expression(value)}")
            elif is_namespace(value):
                self.lines.append(f"{name} = {value.__name__}")
            elif _is_installed(value):
                self.lines.append(
                    f"import {value.__name__} as {name}".replace(f"import {name} as {name}", f"import {name}")
                )
            else:
                raise Unwritable(f"{value.__name__} is not installed")

    def _is_new(self, name: str, value: Any) -> bool:
        if self._made.get(name, TAKEN.get(name, value)) is not value:
            raise Unwritable(f"{name} is the name of two things")
        new = name not in self._made
        self._made[name] = value
        return new


def _is_installed(module: ModuleType) -> bool:
    """True if the module comes with Python or with an installed package, so that other users have it, too."""
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        return False
    paths = [*site.getsitepackages(), *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib"))]
    return file is None or any(Path(path) in Path(file).parents for path in paths)


def _list_globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Yield the names that the source takes from its module, or from Python."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module"):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _list_globals(inner)
