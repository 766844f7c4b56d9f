"""What a compiler is: how it is run under its tap, and how a program that shows its fault is written."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from foldproof.auditing.log import Log
from foldproof.compiler_catalog import Declaration
from foldproof.errors import FoldproofError
from foldproof.torch_internals import tree_map

Options = Mapping[str, Any]

UNQUANTIZED = ", before anything is quantized"
"""The end of what came out, in words, where it is not the last model: that one's numbers are others on purpose."""


@dataclass(frozen=True)
class Compiled:
    """What came out: something that takes the model's inputs, and what it is, in words.

    ``part`` compiles another module in the same way, where that can be done.
    """

    call: Callable[..., Any]
    what: str
    part: Callable[[nn.Module], Callable[..., Any]] | None = None


class Compiler(Protocol):
    """Runs one pipeline under its tap."""

    @property
    def declared(self) -> Declaration:
        """Its name, and what users are told of it."""

    def compile(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        log: Log,
    ) -> Compiled:
        """Compile ``model``, and write every step into ``log``."""

    def script(self, options: Options) -> tuple[list[str], list[str]]:
        """Lines of Python: imports and definitions, and what makes ``got`` of ``model`` and the tuple ``inputs``.

        Raises:
            Unwritable: the options can't be written.
        """


def known(compiler: Compiler, options: Options) -> None:
    """
    Raises:
        FoldproofError: an option that the compiler does not have.
    """
    declared = compiler.declared
    for name in options:
        if name not in declared.options:
            has = ", ".join(declared.options) or "none"
            raise FoldproofError(f"{declared.name} has no option {name!r}; it has {has}")


def buffers_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of its buffers, by name."""
    return {name: t.clone() for name, t in module.named_buffers()}


def set_buffers(module: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Write those ``values`` into its buffers that it has."""
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name in values:
                buffer.copy_(values[name])


def from_start(function: Callable[..., Any], module: nn.Module, buffers: Mapping[str, torch.Tensor]) -> Any:
    """``function``, which runs ``module``, beginning every call with the same ``buffers``, which it may change."""

    def call(*args: Any, **kwargs: Any) -> Any:
        set_buffers(module, buffers)
        return function(*args, **kwargs)

    return call


def clone_tensors(x: Any) -> Any:
    """Arguments with their tensors cloned."""
    return tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, x)


def versions(compiler: Compiler) -> dict[str, str]:
    """The installed versions that matter."""
    return {package: _version(package) for package in ("torch", "foldproof", *compiler.declared.packages)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
