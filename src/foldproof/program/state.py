"""Keeping a module unchanged during a run: its tensors replaced, its Python state restored afterwards."""

from __future__ import annotations

import contextlib
import copy
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError, brief
from foldproof.torch_internals import (
    disable_current_modes,
    reparametrized,
    storage_id,
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
    """Return tensors in attributes (and in their lists, dicts and objects) that are neither parameters nor buffers."""
    registered = {"_parameters", "_buffers", "_modules"}
    attributes = [v for _, x in _holders(module) for k, v in x.__dict__.items() if k not in registered]
    return [t for v in attributes for t in _leaves(v) if isinstance(t, Tensor)]


def _holders(module: nn.Module) -> list[tuple[str, Any]]:
    """Return the modules, and the objects of the user's own classes in their attributes, with prefixes of names."""
    found = [(f"{name}." if name else "", m) for name, m in module.named_modules()]
    seen = {id(m) for _, m in found}
    for prefix, x in found:  # grows meanwhile
        for name, held in list(x.__dict__.items()):
            for y in _leaves(held):
                if id(y) not in seen and _is_of_the_users(y):
                    seen.add(id(y))
                    found.append((f"{prefix}{name}.", y))
    return found


def _leaves(x: Any) -> Iterator[Any]:
    """Yield the contents of containers, however deep; anything else itself."""
    if not _items(x):
        yield x
        return
    seen, pending = set[int](), [x]
    while pending:
        y = pending.pop()
        if type(y) not in _CONTAINERS and type(y) is not tuple:
            yield y
        elif id(y) not in seen:  # containers may contain themselves
            seen.add(id(y))
            pending.extend(reversed(list(_items(y))))


def _is_of_the_users(x: Any) -> bool:
    """Return True for an object whose state is its ``__dict__``; those of PyTorch and of Python have other ways."""
    if isinstance(x, (type, Tensor, nn.Module, ModuleType)) or type(getattr(x, "__dict__", None)) is not dict:
        return False
    return isinstance(x, SimpleNamespace) or type(x).__module__.partition(".")[0] not in _LIBRARIES


_LIBRARIES = {*sys.stdlib_module_names, "torch", "foldproof"} - {"__main__"}


@dataclass
class Written:
    """The writes of a run of a module: to its parameters and buffers, and to attributes that are neither."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Attribute:
    """The value of an attribute, and the module or object that has it."""

    owner: Any
    name: str
    value: Any


@contextlib.contextmanager
def replaced(module: nn.Module, leaves: Mapping[str, Tensor]) -> Iterator[Written]:
    """Run ``module`` with ``leaves`` in place of its tensors; yields a record, which afterwards holds its writes.

    Attributes that forward sets (caches, counters, the training flag) are restored; so are lists, dicts and sets.
    """
    written = Written()
    marks = {name: mark(tensor) for name, tensor in leaves.items()}
    with _kept(module, written.attributes), reparametrized(module, dict(leaves)):
        try:
            yield written
        finally:
            now = dict(owned(module))
            new = {name: tensor for name, tensor in now.items() if name not in leaves}  # None before the run
            written.tensors.update(new)
            for name, tensor in leaves.items():
                current = now.get(name, torch.empty(0))  # None after the run
                if current is not tensor or mark(tensor) != marks[name]:
                    written.tensors[name] = current


def set_attributes(attributes: Iterable[Attribute]) -> None:
    """Set attributes as an earlier run left them."""
    made: dict[int, Any] = {}
    for x in attributes:
        _set(x.owner, x.name, _copied(x.value, made))


def mark(tensor: Tensor) -> tuple[int, int]:
    """Return a mark that changes with a write to the tensor, or with a new ``.data``."""
    residue = getattr(tensor, "residue", None)
    if residue is None:
        return version_of(tensor), tensor.data_ptr()
    return residue.cell.writes, id(residue)  # a version counter of our own, since contexts of PyTorch can hide theirs


_DELETED = object()
_REGISTRIES = {"_parameters", "_buffers", "_non_persistent_buffers_set"}
"""Attributes of every module whose contents are its leaves."""


@contextlib.contextmanager
def _kept(module: nn.Module, changed: dict[str, Attribute]) -> Iterator[None]:
    """Restore all attributes after the run, and add those that it changed to ``changed``."""
    before = [(prefix, owner, dict(owner.__dict__)) for prefix, owner in _holders(module)]
    containers: dict[int, tuple[Any, Any]] = {}
    for _, _, state in before:
        _collect(state.values(), containers)
    # Tensors of inference mode are read-only, so that there is nothing to restore.
    with disable_current_modes():
        writable = [(t, version_of(t), t.detach().clone()) for t in loose(module) if not t.is_inference()]
    try:
        yield
    finally:
        tensors = {id(t) for t, version, _ in writable if version_of(t) != version}
        refill = {at: pair for at, pair in containers.items() if not _same_items(*pair)}
        moved, left = tensors | refill.keys(), dict[int, Any]()
        for prefix, owner, state in before:
            for name in sorted((state.keys() | owner.__dict__.keys()) - _REGISTRIES):
                old, now = state.get(name, _ABSENT), owner.__dict__.get(name, _ABSENT)
                if not _same(old, now) or (moved and _reaches(now, moved)):
                    changed[prefix + name] = Attribute(owner, name, _copied(now, left, tensors))
        for _, owner, state in before:
            for name in {**state, **owner.__dict__}:
                _set(owner, name, state.get(name, _ABSENT))
        for container, items in refill.values():
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(items)
        with disable_current_modes():  # a mode may write to a copy of its own, which must not be restored
            for tensor, version, content in writable:
                if version_of(tensor) != version:
                    tensor.detach().copy_(content)


_ABSENT = object()
_REGISTRIES = {"_parameters", "_buffers", "_non_persistent_buffers_set"}
"""Attributes of every module whose contents are its leaves."""
_CONTAINERS = frozenset({list, dict, set, OrderedDict, defaultdict, deque})
_PLAIN = (bool, int, float, complex, str, bytes, frozenset, torch.Size, torch.dtype, torch.device)


def _set(owner: Any, name: str, x: Any) -> None:
    held = owner.__dict__
    if x is _ABSENT:
        held.pop(name, None)
    elif held.get(name, _ABSENT) is not x:
        held[name] = x


def _items(x: Any) -> Iterable[Any]:
    """Return the contents of a container; none of anything else."""
    kind = type(x)
    if kind is tuple:
        return x  # type: ignore[no-any-return]
    if kind not in _CONTAINERS or not x:
        return ()
    return list(x.values()) if issubclass(kind, dict) else list(x)


def _collect(values: Iterable[Any], containers: dict[int, tuple[Any, Any]]) -> None:
    """Add the containers among ``values``, and those within, each with a shallow copy."""
    for x in values:
        if type(x) in _CONTAINERS and id(x) not in containers:
            containers[id(x)] = x, x.copy()
            _collect(_items(x), containers)
        elif type(x) is tuple:
            _collect(x, containers)


def _reaches(x: Any, ids: Collection[int]) -> bool:
    """Return True if ``x`` is one of the objects with these ``ids``, or contains one."""
    containers: dict[int, tuple[Any, Any]] = {}
    _collect([x], containers)
    return any(id(y) in ids for y in _leaves(x)) or not containers.keys().isdisjoint(ids)


def _copied(x: Any, made: dict[int, Any], tensors: Collection[int] = ()) -> Any:
    """Return a copy of containers in containers, and of ``tensors``; ``made`` keeps shared ones shared."""
    if id(x) in made:
        return made[id(x)]
    if id(x) in tensors:
        made[id(x)] = x.detach().clone()  # as the current modes see it: one may have written to a copy of its own
        return made[id(x)]
    if type(x) is tuple:
        return tuple(_copied(v, made, tensors) for v in x)
    if type(x) not in _CONTAINERS:
        return x
    made[id(x)] = new = x.copy()
    if isinstance(x, dict):
        new.update({k: _copied(v, made, tensors) for k, v in x.items()})
    elif not isinstance(x, set):
        new.clear()
        new.extend(_copied(v, made, tensors) for v in x)
    return new


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    return bool(a == b) if isinstance(a, _PLAIN) else type(a) is tuple and len(a) == len(b) and all(map(_same, a, b))


def _same_items(a: Any, b: Any) -> bool:
    if isinstance(a, set) or not (a or b):
        return bool(a == b)
    keys = not isinstance(a, dict) or list(a) == list(b)
    return keys and len(a) == len(b) and all(map(_same, _items(a), _items(b)))


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
