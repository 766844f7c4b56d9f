"""Graph modules: access to attributes of nodes, and modules that are never printed as code."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from foldproof.log import log_caught


class InterpretedModule(fx.GraphModule):
    """A graph module for interpretation only: the arguments of some graphs cannot be printed as code."""

    def recompile(self) -> Any:
        try:
            return super().recompile()
        except Exception as error:
            log_caught(error, "printing a graph as code")
            return None


def get_attribute(module: nn.Module, path: str) -> Any:
    """Return the attribute or module that a ``get_attr`` or ``call_module`` node with this target refers to."""
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def set_attribute(root: nn.Module, path: str, value: Any) -> None:
    """Store ``value`` under the target of such a node, as a submodule, parameter, buffer or plain attribute."""
    *modules, last = path.split(".")
    for name in modules:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    if isinstance(value, nn.Module):
        root.add_module(last, value)
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        root.register_buffer(last, value)
    else:
        setattr(root, last, value)
