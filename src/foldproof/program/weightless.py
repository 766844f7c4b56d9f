"""Models without weights: parameters and buffers on the meta device, and fake tensors.

A proof for all parameters needs none of their values. Runs in floating point need some: they decide choices, and search
for counterexamples. Those are drawn here, the same for a tensor of both programs, and for tensors of one name.

A large tensor repeats a few random numbers: element (i, j) of a matrix is number 17·i + j of them. It takes no memory
to speak of, and its products look like those of any other matrix. Each dimension has a step of its own, far from small
multiples of the others, so that no transposition or small shift finds the same numbers again. Residues do not repeat: a
proof is for all matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.errors import FoldproofError
from foldproof.program.program import Leaf
from foldproof.torch_internals import FakeTensor, storage_id, tree_map

_SMALL = 1 << 16
"""Largest number of elements that are independent of one another."""
_STEPS = (1, 17, 149, 1009, 7001)
"""Distances of the numbers of two neighbours along each dimension, from the last one."""


def has_values(x: Tensor) -> bool:
    """Return False for tensors on the meta device, and for fake ones."""
    return x.device.type != "meta" and not isinstance(x, FakeTensor)


def _place(x: Tensor) -> tuple[Any, ...]:
    """Return a key of the elements of memory that a tensor consists of."""
    return storage_id(x), x.storage_offset(), tuple(x.shape), x.stride(), x.dtype


class Values:
    """The values that are drawn for tensors without any, the same for both programs of a proof."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._by_tensor: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._by_name: dict[str, Tensor] = {}
        self.overlapping: str | None = None
        """Two tensors without values that share memory and are not the same, in words. Each gets values of its own."""

    def leaves(self, leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
        """Return leaves with values; those that had none are variables, literal constants too.

        Raises:
            FoldproofError: integers or booleans have no values; a proof depends on them.
        """
        known, self._by_tensor = self._by_tensor, {}
        self._note_overlap({name: leaf.tensor for name, leaf in leaves.items() if not has_values(leaf.tensor)})
        out = {name: self._leaf(name, leaf, known) for name, leaf in leaves.items()}
        self._by_tensor = known | self._by_tensor
        return out

    def _note_overlap(self, tensors: Mapping[str, Tensor]) -> None:
        seen: dict[int, tuple[str, Tensor]] = {}
        for name, x in tensors.items():
            first, other = seen.setdefault(storage_id(x), (name, x))
            if _place(x) != _place(other) and x.numel():
                self.overlapping = f"{first} and {name} share memory"

    def _leaf(self, name: str, leaf: Leaf, earlier: Mapping[tuple[Any, ...], tuple[Tensor, Tensor]]) -> Leaf:
        x = leaf.tensor
        if has_values(x):
            return leaf
        tied = self._by_tensor.get(_place(x)) or earlier.get(_place(x))
        drawn = self._by_name.get(name) if tied is None else tied[1]
        if drawn is None or (drawn.shape, drawn.dtype) != (x.shape, x.dtype):
            made = self._drawn(name, x)  # a parameter has any sign, and a buffer may be a variance
            drawn = self._by_name[name] = nn.Parameter(made, False) if isinstance(x, nn.Parameter) else made
        self._by_tensor[_place(x)] = x, drawn
        return replace(leaf, tensor=drawn, constant=False, valueless=True)

    def inputs(self, inputs: Any) -> Any:
        """Return inputs with values.

        Raises:
            FoldproofError: integers or booleans have no values.
        """
        return tree_map(
            lambda x: self._drawn("an input", x) if isinstance(x, Tensor) and not has_values(x) else x, inputs
        )

    def _drawn(self, name: str, x: Tensor) -> Tensor:
        if x.is_complex():
            return torch.view_as_complex(self._drawn(name, torch.view_as_real(x.resolve_conj())).contiguous())
        if not x.dtype.is_floating_point:
            if name.rpartition(".")[2] == "num_batches_tracked":  # a counter
                return torch.zeros(x.shape, dtype=x.dtype)
            raise FoldproofError(
                f"{name} holds {x.dtype} and has no values (device {x.device}), and a proof depends on these; give it"
                " values"
            )
        scale, shift = (0.1, 1.0) if x.ndim < 2 else ((x.shape[0] / max(x.numel(), 1)) ** 0.5, 0.0)
        strides = _STEPS[: x.ndim][::-1]
        needed = sum(n * step for n, step in zip(x.shape, strides))
        if x.numel() <= max(_SMALL, needed) or x.ndim > len(_STEPS):
            return (torch.randn(x.shape, generator=self._generator) * scale + shift).to(x.dtype)
        few = torch.randn(needed, generator=self._generator)
        return (few * scale + shift).to(x.dtype).as_strided(x.shape, strides)


def on_cpu(module: fx.GraphModule) -> fx.GraphModule:
    """Return the graph, and those that it calls, with the CPU in place of the meta device."""
    graphs = [m for m in module.modules() if isinstance(m, fx.GraphModule)]
    if not any(_is_meta(x) for m in graphs for n in m.graph.nodes for x in (*n.args, *n.kwargs.values())):
        return module
    graph, twins, cpu = fx.Graph(), dict[fx.Node, fx.Node](), torch.device("cpu")
    graph.output(graph.graph_copy(module.graph, twins))
    for twin in twins.values():
        twin.args = tuple(cpu if _is_meta(x) else x for x in twin.args)
        twin.kwargs = {name: cpu if _is_meta(x) else x for name, x in twin.kwargs.items()}
    moved = fx.GraphModule(module, graph)
    for name, child in moved.named_children():
        if isinstance(child, fx.GraphModule):
            setattr(moved, name, on_cpu(child))
    return moved


def _is_meta(x: object) -> bool:
    return isinstance(x, torch.device) and x.type == "meta"
