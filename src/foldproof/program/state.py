"""Keeping a module unchanged during a run: its tensors replaced, its Python state restored afterwards."""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from foldproof.errors import FoldproofError, brief
from foldproof.layout import clone
from foldproof.program.containers import Contents, alike, copied_contents, flat, position, reaches, refill, same
from foldproof.program.holders import ABSENT, CACHED, REGISTRIES, Holder, holders_of, own_tensors, registering
from foldproof.torch_internals import (
    disable_current_modes,
    is_traceable_wrapper_subclass,
    reparametrized,
    storage_id,
    tree_map,
    version_of,
)

T = TypeVar("T")


def require_shape(name: str, tensor: Tensor) -> None:
    """Refuse a parameter or buffer of a lazy module that was not called yet.

    Raises:
        FoldproofError: it has no shape.
    """
    if is_lazy(tensor):
        raise FoldproofError(f"{name} has no shape yet, as its module is lazy; call the module once before")


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
    return storage_id(tensor) if tensor.layout is torch.strided and not is_lazy(tensor) else id(tensor)


def loose(module: nn.Module) -> list[Tensor]:
    """Return tensors that a call of ``module`` may reach, and that are neither its parameters nor its buffers.

    They are in attributes (and in their lists, dicts and objects), in classes, and in variables of functions.
    """
    return own_tensors(holders_of({"": module}), [module])


@dataclass(frozen=True)
class Attribute:
    """A value that a run set: of an attribute, or of a variable of a function or Python module.

    ``holder`` is the place of its holder among those that a call may reach, and ``name`` its name there. A function
    with a cache of `functools` is one that the next call needs, but not by itself a reason to compare two.
    """

    holder: int
    name: str
    value: Any

    @property
    def is_cache(self) -> bool:
        """True for a function with the cache that a run filled."""
        return isinstance(self.value, CACHED)


class Written:
    """The writes of a run of modules: to their parameters and buffers, and to other Python state."""

    def __init__(self, kept: Kept) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Attribute] = {}
        self._kept = kept

    def resume(self, attributes: Iterable[Attribute]) -> None:
        """Set what an earlier run left."""
        self._kept.resume(attributes)


@contextlib.contextmanager
def replaced(
    modules: Mapping[str, nn.Module],
    leaves: Mapping[str, Tensor],
    functions: Iterable[Any] = (),
    variables: Iterable[Tensor] = (),
) -> Iterator[Written]:
    """Run ``modules`` with ``leaves`` in place of their tensors; yields a record, which afterwards holds the writes.

    The keys of ``modules`` are prefixes of the names of ``leaves``; ``variables`` are leaves that ``functions`` hold
    already. Python state that a call of the modules or ``functions`` may reach (caches, counters, the training flag,
    variables of closures) is restored; so are lists, dicts and sets.
    """
    kept = Kept(modules, functions, (*leaves.values(), *variables))
    written = Written(kept)
    marks = {name: mark(tensor) for name, tensor in leaves.items()}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: written.attributes.update(kept.put_back()))
        for prefix, module in modules.items():
            own = {name: leaves[prefix + name] for name, _ in owned(module) if prefix + name in leaves}
            stack.enter_context(reparametrized(module, own))
        try:
            yield written
        finally:
            now = {prefix + name: t for prefix, module in modules.items() for name, t in owned(module)}
            new = {name: tensor for name, tensor in now.items() if name not in leaves}  # None before the run
            written.tensors.update(new)
            for name, tensor in leaves.items():
                current = now.get(name, torch.empty(0))  # None after the run
                if current is not tensor or mark(tensor) != marks[name]:
                    written.tensors[name] = current


def mark(tensor: Tensor) -> tuple[int, int]:
    """Return a mark that changes with a write to the tensor, or with a new ``.data``."""
    residue = getattr(tensor, "residue", None)
    if residue is None:
        return version_of(tensor), tensor.data_ptr()
    return residue.cell.writes, id(residue)  # a version counter of our own, since contexts of PyTorch can hide theirs


@contextlib.contextmanager
def undone(module: nn.Module) -> Iterator[list[str]]:
    """Put back all Python state that a call of ``module`` in this context may change, as that of an export.

    Yields a list that afterwards has the names of what changed.
    """
    names: list[str] = []
    # An export undoes what the module sets in itself before it returns.
    made: list[Kept] = []
    hook = module.register_forward_hook(lambda module, args, out: names.extend(made[0].list_changed()))
    kept = Kept({"": module})
    made.append(kept)
    try:
        yield names
    finally:
        names += [name for name in kept.list_changed() if name not in names]
        kept.put_back()
        hook.remove()


_LEAVES = REGISTRIES - {"_modules"}
"""Attributes of a module whose contents are its leaves."""


class Kept:
    """Python state that a call of modules or functions may reach, as it is now: changes are told, and undone.

    ``given`` tensors stand for leaves, whose changes are counted elsewhere. With ``fresh_caches``, functions with a
    cache of `functools` are replaced by ones with an empty cache until all is put back: the owner's caches are not to
    hold results of a proof, nor a proof theirs.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        functions: Iterable[Any] = (),
        given: Iterable[Tensor] = (),
        fresh_caches: bool = True,
    ) -> None:
        self._holders = holders_of(modules, functions)
        self._registering = registering(modules.values())
        self._before = [(holder, holder.read()) for holder in self._holders]
        self._contents = Contents(x for _, state in self._before for x in state.values())
        skipped = {id(t) for t in given}
        # Tensors of inference mode are read-only, so that there is nothing to restore.
        tensors = [t for t in own_tensors(self._holders, modules.values()) if id(t) not in skipped]
        with disable_current_modes():
            self._tensors = [(t, version_of(t), t.detach().clone()) for t in tensors if not t.is_inference()]
        self._iterators = [
            (holder.tell(name), y, at)
            for holder, state in self._before
            for name, x in state.items()
            for y in flat(x)
            if (at := position(y)) is not None
        ]
        self._caches = [
            (holder, name, functools.lru_cache(**x.cache_parameters())(x.__wrapped__))
            for holder, state in self._before
            for name, x in state.items()
            if isinstance(x, CACHED) and fresh_caches
        ]
        for holder, name, fresh in self._caches:
            holder.write(name, fresh)

    def resume(self, attributes: Iterable[Attribute]) -> None:
        """Set values as an earlier run left them."""
        made: dict[int, Any] = {}
        for x in attributes:
            self._holders[x.holder].write(x.name, copied_contents(x.value, made))

    def list_changed(self) -> list[str]:
        """Return the names of attributes and variables, and of containers in them, that changed so far."""
        refilled = self._contents.changed()
        found: list[str] = []
        for holder, state in self._before:
            current = holder.read()
            for name in self._names(holder, state, current):
                old, now = state.get(name, ABSENT), current.get(name, ABSENT)
                # An export gives a module copies of its containers meanwhile.
                if not isinstance(now, CACHED) and (not alike(old, now) or reaches(now, refilled)):
                    found.append(holder.tell(name))
        return found

    def _names(self, holder: Holder, *states: Mapping[str, Any]) -> list[str]:
        """Return the names in these states of a holder, without those of leaves."""
        names = {name for state in states for name in state}
        return sorted(names - _LEAVES if id(holder.owner) in self._registering else names)

    def put_back(self) -> dict[str, Attribute]:
        """Restore everything, and return the values that changed, by name.

        Raises:
            FoldproofError: an iterator moved, which nothing puts back.
        """
        caches = {(id(holder), name) for holder, name, _ in self._caches}
        changed: dict[str, Attribute] = {}
        with disable_current_modes():
            written = [(t, content) for t, version, content in self._tensors if _is_written(t, version, content)]
        tensors = {id(t) for t, _ in written}
        refilled = self._contents.changed()
        moved, left = tensors | refilled.keys(), dict[int, Any]()
        for place, (holder, state) in enumerate(self._before):
            current = holder.read()
            for name in self._names(holder, state, current):
                old, now = state.get(name, ABSENT), current.get(name, ABSENT)
                if (id(holder), name) in caches and isinstance(now, CACHED) and not now.cache_info().misses:
                    continue
                if not same(old, now) or (moved and reaches(now, moved)):
                    value = copied_contents(now, left, tensors)
                    changed[holder.tell(name)] = Attribute(place, name, value)
        for holder, state in self._before:
            for name, now in holder.read().items():
                if name not in state:
                    holder.write(name, ABSENT)
                elif state[name] is not now:
                    holder.write(name, state[name])
            for name in state.keys() - holder.read().keys():
                holder.write(name, state[name])
        for container, content in refilled.values():
            refill(container, content)
        with disable_current_modes():  # a mode may write to a copy of its own, which must not be restored
            for tensor, content in written:
                if tensor.shape == content.shape:
                    tensor.detach().copy_(content)
                else:
                    tensor.data = content.clone()
        for name, iterator, at in self._iterators:
            if position(iterator) != at:
                raise FoldproofError(
                    f"a call advances the iterator {name}, which can't be put back, so its calls can't be compared;"
                    " count in a buffer or an attribute instead"
                )
        return changed


def _is_written(tensor: Tensor, version: int, content: Tensor) -> bool:
    """Return True for a tensor that was written to; a training BatchNorm, for one, writes without a new version."""
    return version_of(tensor) != version or _differs(tensor.detach(), content)


def _differs(now: Tensor, content: Tensor) -> bool:
    if is_traceable_wrapper_subclass(now):  # torchao's quantized weights have no comparison, but their parts do
        parts = now.__tensor_flatten__()[0]
        return any(_differs(getattr(now, part), getattr(content, part)) for part in parts)
    if now.layout is not torch.strided or now.is_quantized or now.device.type == "meta":
        return False
    if now.shape != content.shape:
        return True
    if now.is_floating_point() and now.element_size() == 1:  # float8 has no comparison
        now, content = now.float(), content.float()
    return not bool(((now == content) | ((now != now) & (content != content))).all())


def copied(x: Any) -> Any:
    """Return ``x`` with its tensors cloned, each by itself, so that writes to inputs do not reach the caller's."""
    return tree_map(lambda t: clone(t.detach()) if isinstance(t, Tensor) else t, x)


@contextlib.contextmanager
def quiet_copies() -> Iterator[None]:
    """Silence a warning in ``copy.deepcopy``: torch 2.13 copies its own pytree specs in a deprecated way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        yield


def deepcopied(x: T, instead: Mapping[int, Any] = MappingProxyType({})) -> T:
    """Return a deep copy, with other objects ``instead`` of those with the given ids.

    Raises:
        FoldproofError: a part of it cannot be copied.
    """
    with quiet_copies():
        try:
            return copy.deepcopy(x, dict(instead))
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
