"""The interface of a compiler: run it under its tap, and write the lines of a reproduction that call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from foldproof.auditing.log import Log
from foldproof.compiler_catalog import Declaration
from foldproof.errors import FoldproofError
from foldproof.layout import clone_apart
from foldproof.torch_internals import tree_map
from foldproof.version import find_version

Options = Mapping[str, Any]

UNQUANTIZED = ", before anything is quantized"
"""Suffix of a description if numbers are compared before quantization, which changes them on purpose."""


@dataclass(frozen=True)
class Compiled:
    """The result of a compilation: a callable that takes the model's inputs, and its description.

    ``part`` compiles another module in the same way, if that is possible. ``holder`` is the module whose parameters and
    buffers a call writes to, under the model's names; None if they can't be read. ``restart`` puts back a state that
    only the runtime can reach.
    """

    call: Callable[..., Any]
    what: str
    part: Callable[[nn.Module], Callable[..., Any]] | None = None
    holder: nn.Module | None = None
    restart: Callable[[], None] | None = None


class Compiler(Protocol):
    """Runs one pipeline under its tap."""

    @property
    def declared(self) -> Declaration:
        """Its name and the description for users."""

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        """Compile ``model``, and record every step in ``log``."""

    def write_script(self, options: Options) -> tuple[list[str], list[str]]:
        """Write Python: the lines of imports and definitions, and those that set ``got`` from ``model`` and ``inputs``.

        Raises:
            Unwritable: the options can't be written.
        """


def require_known_options(compiler: Compiler, options: Options) -> None:
    """Check the names of options.

    Raises:
        FoldproofError: the compiler has no such option.
    """
    declared = compiler.declared
    for name in options:
        if name not in declared.options:
            has = ", ".join(declared.options) or "none"
            raise FoldproofError(f"{declared.name} has no option {name!r}; it has {has}")


def copy_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the buffers of a module, by name."""
    return {name: t.clone() for name, t in module.named_buffers()}


def set_buffers(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Write ``values`` into the buffers of these names, as far as the module has them."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name in values:
                buffer.copy_(values[name])


def clone_tensors(x: Any) -> Any:
    """Clone the tensors in arguments."""
    return tree_map(lambda t: clone_apart(t) if isinstance(t, torch.Tensor) else t, x)


def list_versions(compiler: Compiler) -> dict[str, str]:
    """Return the installed versions of torch and of the compiler's packages."""
    return {package: find_version(package) for package in ("torch", "foldproof", *compiler.declared.packages)}
