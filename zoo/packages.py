"""Packages in a folder of their own, and stand-ins for modules that their imports ask for."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def importable(folder: Path, stand_ins: Sequence[str]) -> None:
    """Let Python import the packages in ``folder``, after those of the environment.

    A package of ``stand_ins`` that is missing has anything in it, and does nothing.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        sys.meta_path.append(_StandIns(stand_ins))
        _define_operators_of_torchvision()


class _StandIn(types.ModuleType):
    """A module with any name in it: classes that do nothing (generic ones, too), and decorators that change nothing."""

    __path__ = []  # noqa: RUF012 (it is a package)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        does = {"__init__": lambda *_, **__: None, "__call__": lambda _, f=None, *__: f}
        return type(name, (), does | {"__class_getitem__": classmethod(lambda cls, _: cls)})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        wanted = name.partition(".")[0] in self._names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> _StandIn:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _define_operators_of_torchvision() -> None:
    """Declare two operators that torchvision's Python code names: its wheel may be built for another PyTorch."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


_KEPT: list[Any] = []
