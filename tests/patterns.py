"""Patterns that torchao exports anew whenever it prepares or converts a network: most of the time of such tests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import CellType, FunctionType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn

_SETTINGS = set(vars(nn.Module()))
"""Attributes of every module."""


def export_patterns_once() -> None:
    """Has torchao export each pattern once in a process, and work on copies, because it changes them."""
    try:
        from torchao.quantization.pt2e import utils
    except ImportError:
        return
    utils._get_aten_graph_module_for_pattern = _once(utils._get_aten_graph_module_for_pattern)


def _once(export: Callable[..., fx.GraphModule]) -> Callable[..., fx.GraphModule]:
    known: dict[Any, fx.GraphModule] = {}
    export_program = torch.export.export

    def leniently(*args: Any, strict: bool) -> Any:
        """It asks for strict mode, which gives the same graphs in four times the time."""
        return export_program(*args, strict=False)

    def pattern(*args: Any, **kwargs: Any) -> fx.GraphModule:
        key = _describe((args, kwargs))
        if key not in known:
            with mock.patch("torch.export.export", leniently):
                known[key] = export(*args, **kwargs)
        return copy.deepcopy(known[key])

    return pattern


def _describe(x: Any) -> Any:
    """The same value for patterns made by the same code from the same parts."""
    if isinstance(x, Tensor):
        return tuple(x.shape), x.dtype, x.device
    if isinstance(x, FunctionType):
        return x.__code__, _describe((x.__closure__, x.__defaults__, x.__kwdefaults__))
    if isinstance(x, CellType):
        return _describe(x.cell_contents)
    if isinstance(x, nn.Module):
        return type(x), x.training, _describe({k: v for k, v in vars(x).items() if k not in _SETTINGS})
    if isinstance(x, Mapping):
        return tuple((key, _describe(value)) for key, value in x.items())
    if isinstance(x, list | tuple):
        return tuple(map(_describe, x))
    return type(x), x
