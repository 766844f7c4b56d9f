"""Constants that the program computes at every call: they are computed once, in advance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.fx import Node

from foldproof.fusion.motion.selection import SELECTIONS
from foldproof.graph.nodes import is_getitem, is_view, kind_of, operator_of
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.torch_internals import is_traceable_wrapper_subclass

_ARRANGING = SELECTIONS - {"im2col", "_to_copy", "to", "index", "index_select"}
_MAKING = frozenset({"arange", "full", "zeros", "ones", "empty", "eye", "scalar_tensor", "linspace", "new_zeros"}) | {
    *("new_ones", "new_full", "zeros_like", "ones_like", "full_like", "lift_fresh", "detach", "alias")
}


_PACKED = frozenset({torch.int8, torch.uint8, torch.int16, torch.float8_e4m3fn, torch.float8_e5m2})
MAX_GROWTH = 1 << 24
"""Number of bytes that a computed constant may take beyond those that it is computed from: a mask of 2048 × 2048."""


@dataclass(frozen=True)
class ComputedConstant:
    """A constant, ``node``, that other values are computed from; ``calls`` compute it, and depend on no input."""

    node: Node
    calls: list[Node]


def find_computed(nodes: Iterable[Node], constants: Constants) -> list[ComputedConstant]:
    """Find the constants that calls compute anew each time (normalised weights, masks, tables of positions).

    Calls that only arrange the elements of a parameter, or fill in numbers, cost nothing worth the memory.
    """
    found = []
    places = {node: place for place, node in enumerate(nodes)}
    for node in places:
        if not constants.holds_computed(node) or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        readers = [user for user in node.users if not constants.holds(user)]
        if not readers or any(user.op == "output" for user in readers):
            continue
        computing = [*constants.computing([node]), node]
        calls = [call for call in computing if _is_work(call)]
        if calls and not any(_is_compressed(call, constants) for call in computing):
            found.append(ComputedConstant(node, sorted(calls, key=places.__getitem__)))
    return found


def require_small(node: Node, constants: Constants) -> None:
    """Check that a constant is not much larger than those that it is computed from.

    Raises:
        CannotFold: it would take too much memory.
    """
    value = value_of(node)
    size = value.numel() * value.element_size()
    origins = sum(constants.tensors[name].nbytes for name in constants.origins(node))
    if size - origins > MAX_GROWTH:
        raise CannotFold(f"it would take {size} bytes, and what it is computed from takes {origins}")


def _is_compressed(call: Node, constants: Constants) -> bool:
    """Return True if a call reads a weight that is stored in few bits, which is to stay so."""
    operator = operator_of(call)
    read = [constants.tensor_of(operand) for operand in call.all_input_nodes]
    packed = any(t is not None and (t.dtype in _PACKED or is_traceable_wrapper_subclass(t)) for t in read)
    return packed or (operator is not None and operator.namespace != "aten")


def _is_work(call: Node) -> bool:
    """Return True if a call computes numbers."""
    return not (is_getitem(call) or is_view(call) or kind_of(call) in _ARRANGING or kind_of(call) in _MAKING)
