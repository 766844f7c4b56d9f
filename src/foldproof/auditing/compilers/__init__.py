"""The compilers that can be audited, one file each; `foldproof.compiler_catalog` declares them."""

from __future__ import annotations

import importlib

from foldproof.auditing.compilers.compiler import Compiled, Compiler
from foldproof.compiler_catalog import DECLARED, check_compiler

__all__ = ["Compiled", "Compiler", "find_compiler"]


def find_compiler(name: str) -> Compiler:
    """Return the compiler of this name.

    Raises:
        FoldproofError: there is none.
    """
    check_compiler(name)
    module, _, variable = DECLARED[name].runner.partition(":")
    found: Compiler = getattr(importlib.import_module(f"{__name__}.{module}"), variable)
    return found
