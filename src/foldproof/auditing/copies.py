"""Copies of tensors and modules: passes write into parameters, and earlier graphs must not change with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.program.state import quiet_copies
from foldproof.torch_internals import negated_view, tree_leaves, version_of

T = TypeVar("T")


@dataclass(frozen=True)
class _Content:
    """The memory of a tensor as bytes, with a copy of them; ``number`` identifies it."""

    number: int
    memory: Tensor
    copy: Tensor


class Copies:
    """Copies of tensors, made again only if their memory was written to since.

    `of` returns (identity, copy). Identities are equal only for the same tensor object with the same content. Copies of
    tensors that share memory share memory.
    """

    def __init__(self) -> None:
        self._contents: dict[int, _Content] = {}
        self._made: dict[str, Tensor] = {}
        self._modules: dict[str, nn.Module] = {}
        self._kept: list[Any] = []
        self._writes: dict[int, tuple[Tensor, int, int, str]] = {}
        """Each tensor by id, with the address of its memory, PyTorch's count of writes, and its identity then."""

    def of(self, x: Tensor) -> tuple[str, Tensor]:
        """Return a tensor's identity and copy; tensors without memory of their own (fake, subclasses) aren't copied."""
        if type(x) not in (Tensor, nn.Parameter) or x.layout is not torch.strided or x.device.type == "meta":
            return self.identify(x), x
        content = self._content(x)
        identity = f"{content.number} {x.dtype} {x.storage_offset()} {tuple(x.shape)} {x.stride()}"
        identity += " conjugate" * x.is_conj() + " negative" * x.is_neg()
        if identity not in self._made:
            made = torch.empty(0, dtype=x.dtype, device=x.device).set_(
                content.copy.untyped_storage(), x.storage_offset(), x.size(), x.stride()
            )
            made = negated_view(made) if x.is_neg() else made
            made = torch.conj(made) if x.is_conj() else made
            self._made[identity] = nn.Parameter(made, x.requires_grad) if isinstance(x, nn.Parameter) else made
        if not x.is_inference():
            self._writes[id(x)] = x, x.data_ptr(), version_of(x), identity
        return identity, self._made[identity]

    def knows(self, x: Any, identity: str) -> bool:
        """Return True if a tensor had this identity, and PyTorch counts no write to it since."""
        seen = self._writes.get(id(x))
        return seen is not None and seen[0] is x and seen[1:] == (x.data_ptr(), version_of(x), identity)

    def identify(self, x: Any) -> str:
        """Return the identity of any object, and keep the object alive, so that the identity stays unique."""
        self._kept.append(x)
        return f"{type(x).__name__} {id(x)}"

    def _content(self, x: Tensor) -> _Content:
        storage = x.untyped_storage()
        memory = torch.empty(0, dtype=torch.uint8, device=x.device).set_(storage)
        found = self._contents.get(storage.data_ptr())
        if found is None or not _same_bytes(found.copy, memory):
            found = _Content(len(self._contents), memory, memory.clone())
            self._contents[storage.data_ptr()] = self._contents[found.copy.data_ptr()] = found
        return found

    def module(self, identity: str, x: nn.Module) -> nn.Module:
        """Return the copy of a module; there is one for each identity."""
        if identity not in self._modules:
            self._modules[identity] = self.copy(x)
        return self._modules[identity]

    def copy(self, x: T) -> T:
        """Return a deep copy of a module or program, with copies of its tensors as they are now."""
        with quiet_copies():
            return copy.deepcopy(x, {id(t): self.of(t)[1] for t in list_tensors(x)})


def list_tensors(x: Any) -> Iterator[Tensor]:
    """Yield the tensors that a module or exported program holds."""
    if isinstance(x, ExportedProgram):
        held = [*x.state_dict.values(), *x.constants.values(), *tree_leaves(x.example_inputs or ())]
    else:
        parts = [(m.__dict__.values(), m.parameters(recurse=False), m.buffers(recurse=False)) for m in x.modules()]
        held = [value for part in parts for values in part for value in values]
    return (value for value in held if isinstance(value, Tensor))


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    if a.numel() != b.numel():
        return False
    whole: int = a.numel() - a.numel() % 8  # eight at a time is three times as fast
    return torch.equal(a[:whole].view(torch.int64), b[:whole].view(torch.int64)) and torch.equal(a[whole:], b[whole:])
