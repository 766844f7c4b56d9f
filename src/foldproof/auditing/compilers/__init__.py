"""The compilers that can be audited, one file each; `foldproof.compiler_catalog` declares them."""

from __future__ import annotations

import importlib

from foldproof.auditing.compilers.compiler import Compiled, Compiler
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError

__all__ = ["Compiled", "Compiler", "find_compiler"]


def find_compiler(name: str) -> Compiler:
    """Return the compiler of this name.

    Raises:
        FoldproofError: there is none.
    """
    if name not in DECLARED:
        raise FoldproofError(f"compiler must be one of {', '.join(DECLARED)}, not {name!r}")
    module, _, variable = DECLARED[name].runner.partition(":")
    found: Compiler = getattr(importlib.import_module(f"{__name__}.{module}"), variable)
    return found
