"""Keeping a module unchanged during a run: its tensors replaced, its Python state restored afterwards."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError, brief
from foldproof.torch_internals import (
    disable_current_modes,
    reparametrized,
    storage_id,
    tree_leaves,
    tree_map,
    version_of,
)

T = TypeVar("T")


def owned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers by name; tied ones under every name."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def quantization_parameters(module: nn.Module) -> set[str]:
    """Return the names of the tensors of observers and fake quantizations: scales, zero points, and statistics."""
    observers = [m for m in module.modules() if callable(getattr(m, "calculate_qparams", None))]
    held = {id(t) for observer in observers for _, t in owned(observer)}
    return {name for name, tensor in owned(module) if id(tensor) in held}


def storage_key(tensor: Tensor) -> int:
    """Return a key that is equal for tensors that share memory, as long as one of them lives."""
    return storage_id(tensor) if tensor.layout is torch.strided else id(tensor)


def loose(module: nn.Module) -> list[Tensor]:
    """Return tensors in attributes (and in their lists and dicts) that are neither parameters nor buffers."""
    registered = {"_parameters", "_buffers", "_modules"}
    attributes = [[v for k, v in m.__dict__.items() if k not in registered] for m in module.modules()]
    return [t for t in tree_leaves(attributes) if isinstance(t, Tensor)]


@contextlib.contextmanager
def replaced(module: nn.Module, leaves: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Run ``module`` with ``leaves`` in place of its tensors; yields a dict, which afterwards holds its writes to them.

    Attributes that forward sets (caches, counters, the training flag) are restored; so are lists, dicts and sets.
    """
    written: dict[str, Tensor] = {}
    marks = {name: mark(tensor) for name, tensor in leaves.items()}
    with _kept(module), reparametrized(module, dict(leaves)):
        try:
            yield written
        finally:
            now = dict(owned(module))
            written.update({name: tensor for name, tensor in now.items() if name not in leaves})  # None before the run
            for name, tensor in leaves.items():
                current = now.get(name, torch.empty(0))  # None after the run
                if current is not tensor or mark(tensor) != marks[name]:
                    written[name] = current


def mark(tensor: Tensor) -> tuple[int, int]:
    """Return a mark that changes with a write to the tensor, or with a new ``.data``."""
    residue = getattr(tensor, "residue", None)
    if residue is None:
        return version_of(tensor), tensor.data_ptr()
    return residue.cell.writes, id(residue)  # a version counter of our own, since contexts of PyTorch can hide theirs


@contextlib.contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    before = [(m, {k: _shallow(v) for k, v in m.__dict__.items()}) for m in module.modules()]
    # Tensors of inference mode are read-only, so that there is nothing to restore.
    with disable_current_modes():
        writable = [(t, version_of(t), t.detach().clone()) for t in loose(module) if not t.is_inference()]
    try:
        yield
    finally:
        for m, state in before:
            m.__dict__.clear()
            m.__dict__.update(state)
        with disable_current_modes():  # a mode may write to a copy of its own, which must not be restored
            for tensor, version, content in writable:
                if version_of(tensor) != version:
                    tensor.detach().copy_(content)


def _shallow(x: Any) -> Any:
    return copy.copy(x) if type(x) in (list, dict, set) else x


def copied(x: Any) -> Any:
    """Return ``x`` with its tensors cloned, each by itself, so that writes to inputs do not reach the caller's."""
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, x)


@contextlib.contextmanager
def quiet_copies() -> Iterator[None]:
    """Silence a warning in ``copy.deepcopy``: torch 2.13 copies its own pytree specs in a deprecated way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        yield


def deepcopied(x: T) -> T:
    """Return a deep copy.

    Raises:
        FoldproofError: a part of it cannot be copied.
    """
    with quiet_copies():
        try:
            return copy.deepcopy(x)
        except Exception as error:
            raise FoldproofError(
                f"{type(x).__name__} cannot be copied ({brief(error)}), and foldproof works on copies only; give its"
                " torch.export program"
            ) from error


class Parameters:
    """A factory that makes one parameter of each tensor, so that tied parameters stay one object."""

    def __init__(self) -> None:
        self._made: dict[int, nn.Parameter] = {}

    def __call__(self, tensor: Tensor) -> nn.Parameter:
        if id(tensor) not in self._made:
            self._made[id(tensor)] = nn.Parameter(tensor, requires_grad=False)
        return self._made[id(tensor)]
