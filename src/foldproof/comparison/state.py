"""The state of a module: copies of it, reading what a call changed, and putting it back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foldproof.comparison.judge import identical
from foldproof.program.mirror import mirror
from foldproof.program.state import Kept, loose, owned, storage_key


def separate(module: nn.Module) -> nn.Module:
    """A mirror of ``module`` with tensors of its own; those that share memory share the copy of that memory."""
    storages: dict[int, torch.UntypedStorage] = {}
    made: dict[int, Tensor] = {}
    for tensor in _all_tensors(module):
        key = storage_key(tensor)
        if key not in storages:
            storages[key] = tensor.untyped_storage().clone()
        place = tensor.storage_offset(), tensor.shape, tensor.stride()
        copy = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storages[key], *place)
        if isinstance(tensor, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
        copy.__dict__.update(tensor.__dict__)
        made[id(tensor)] = copy
    return mirror(module, made)


class State:
    """Parameters, buffers and Python state of ``module``, as they were when this was made.

    All is put back in place, for compiled code may hold the very tensors.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._contents = {id(t): (t, t.detach().clone()) for t in _all_tensors(module)}
        self._start = {name: self._contents[id(t)][1] for name, t in owned(module) if id(t) in self._contents}
        self._kept = Kept({"": module}, given=[t for t, _ in self._contents.values()], fresh_caches=False)

    def read(self) -> tuple[dict[str, Tensor], frozenset[str]]:
        """All values, which no later call changes, by name in words, and the names that differ from the start."""
        values, changed = {}, set()
        for path, tensor in owned(self._module):
            if not _is_ordinary(tensor):
                continue
            name, start = name_in_words(path, tensor), self._start.get(path)
            now = tensor.detach()
            if start is None or not identical([start], [now]):
                changed.add(name)
                start = now.clone()
            values[name] = start
        return values, frozenset(changed)

    def put_back(self) -> None:
        """Undo every call since the start."""
        self._kept.put_back()
        with torch.no_grad():
            for tensor, content in self._contents.values():
                if tensor.shape != content.shape or tensor.dtype != content.dtype:
                    tensor.data = content.clone()
                elif not identical([tensor.detach()], [content]):
                    tensor.detach().copy_(content)


def name_in_words(name: str, tensor: Tensor) -> str:
    """``buffer cache`` for a buffer of that name."""
    return f"{'parameter' if isinstance(tensor, nn.Parameter) else 'buffer'} {name}"


def _all_tensors(module: nn.Module) -> list[Tensor]:
    """Ordinary dense tensors among parameters, buffers and attributes, each once."""
    found = {id(t): t for t in (*(t for _, t in owned(module)), *loose(module))}
    return [t for t in found.values() if _is_ordinary(t)]


def _is_ordinary(t: Tensor) -> bool:
    if type(t) not in (Tensor, nn.Parameter) or t.layout is not torch.strided or t.is_inference():
        return False
    return not (t.is_quantized or t.is_nested or t.device.type == "meta" or t.is_conj() or t.is_neg())
