"""Keeping a module as it is while it is run: its tensors replaced, its Python state put back afterwards."""

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
    """Parameters and buffers by name; tied ones under every name."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def quantization_parameters(module: nn.Module) -> set[str]:
    """Names of what observers and fake quantizations hold: scales, zero points, and what these were made of."""
    observers = [m for m in module.modules() if callable(getattr(m, "calculate_qparams", None))]
    held = {id(t) for observer in observers for _, t in owned(observer)}
    return {name for name, tensor in owned(module) if id(tensor) in held}


def storage_key(tensor: Tensor) -> int:
    """Equal for tensors that share memory, for as long as one of them lives."""
    return storage_id(tensor) if tensor.layout is torch.strided else id(tensor)


def loose(module: nn.Module) -> list[Tensor]:
    """Tensors in attributes (and in their lists and dicts) that are neither parameters nor buffers."""
    registered = {"_parameters", "_buffers", "_modules"}
    attributes = [[v for k, v in m.__dict__.items() if k not in registered] for m in module.modules()]
    return [t for t in tree_leaves(attributes) if isinstance(t, Tensor)]


@contextlib.contextmanager
def replaced(module: nn.Module, leaves: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Run ``module`` with ``leaves`` in place of its tensors; gives what was written to or replaced, afterwards.

    Attributes that forward sets (caches, counters, the training flag) are put back; so are lists, dicts and sets.
    """
    written: dict[str, Tensor] = {}
    marks = {name: mark(tensor) for name, tensor in leaves.items()}
    with _kept(module), reparametrized(module, dict(leaves)):
        try:
            yield written
        finally:
            now = dict(owned(module))
            written.update({name: tensor for name, tensor in now.items() if name not in leaves})  # None until now
            for name, tensor in leaves.items():
                current = now.get(name, torch.empty(0))  # None by now
                if current is not tensor or mark(tensor) != marks[name]:
                    written[name] = current


def mark(tensor: Tensor) -> tuple[int, int]:
    """Changes when the tensor is written to, or its ``.data`` is replaced."""
    residue = getattr(tensor, "residue", None)
    if residue is None:
        return version_of(tensor), tensor.data_ptr()
    return residue.cell.writes, id(residue)  # which no context of PyTorch's hides


@contextlib.contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    before = [(m, {k: _shallow(v) for k, v in m.__dict__.items()}) for m in module.modules()]
    # Nobody can write to tensors of inference mode.
    with disable_current_modes():
        writable = [(t, version_of(t), t.detach().clone()) for t in loose(module) if not t.is_inference()]
    try:
        yield
    finally:
        for m, state in before:
            m.__dict__.clear()
            m.__dict__.update(state)
        with disable_current_modes():  # a mode may have a copy of its own to write to, which is not to be put back
            for tensor, version, content in writable:
                if version_of(tensor) != version:
                    tensor.detach().copy_(content)


def _shallow(x: Any) -> Any:
    return copy.copy(x) if type(x) in (list, dict, set) else x


def copied(x: Any) -> Any:
    """Tensors cloned, each by itself, so that a program that writes to its inputs changes nothing of the caller's."""
    return tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, x)


@contextlib.contextmanager
def quiet_copies() -> Iterator[None]:
    """Around ``copy.deepcopy``: torch 2.13 copies its own pytree specs in a way that it has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        yield


def deepcopied(x: T) -> T:
    """A deep copy.

    Raises:
        FoldproofError: something in it can't be copied.
    """
    with quiet_copies():
        try:
            return copy.deepcopy(x)
        except Exception as error:
            raise FoldproofError(
                f"{type(x).__name__} can't be copied ({brief(error)}), and foldproof works on copies only; give its"
                " torch.export program instead"
            ) from error


class Parameters:
    """Makes parameters of tensors, one of each, so that tied parameters stay one object."""

    def __init__(self) -> None:
        self._made: dict[int, nn.Parameter] = {}

    def __call__(self, tensor: Tensor) -> nn.Parameter:
        if id(tensor) not in self._made:
            self._made[id(tensor)] = nn.Parameter(tensor, requires_grad=False)
        return self._made[id(tensor)]
