"""The first difference of two graphs: a value of *before*, and the corresponding, different value of *after*.

Both graphs run on shadows of one sample point. Values are compared by digests of their residues, in order and without
shapes, so that a view equals its source. Walking back from a differing output through the values that the other graph
lacks gives a region in each graph. The walk does not reach values that a correct rewrite replaced earlier, because
later values agree again.

Inside of the regions nothing corresponds exactly. Most wrong rewrites are small changes, so that a value of *after*
corresponds to the nearest value, as floats, of the same size in *before*. The first difference is the first value of
*after* that is near one of *before*, but not equal to it. In a wrong fold of a BatchNorm this is the convolution after
the fold, which corresponds to the BatchNorm before it, and not to the convolution, whose value a correct fold would
change as well. The result helps the reader, and no verdict depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.digest import digest
from foldproof.graph.text import module_of, operator_name, source_of
from foldproof.operators import list_written
from foldproof.proof.attempt import lending, run_both
from foldproof.proof.obligation import ProofObligation
from foldproof.proof.variation import vary
from foldproof.shadow import SamplePoint, Shadow, Undecided, is_number
from foldproof.thresholds import MAX_PARTING_DISTANCE
from foldproof.torch_internals import OpOverload, disable_current_modes, tree_leaves
from foldproof.verdict import Difference, DifferingNode


@dataclass
class _Values:
    """Values of a graph's nodes: digests of their residues, and the numbers themselves."""

    digests: dict[fx.Node, list[str]] = field(default_factory=dict)
    numbers: dict[fx.Node, Tensor] = field(default_factory=dict)

    def note(self, node: fx.Node, out: Any) -> None:
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        with disable_current_modes():  # residues made on demand are drawn anew
            self.digests[node] = [_digest(t) for t in tensors]
            if len(tensors) == 1:
                self.numbers[node] = tensors[0].value if isinstance(tensors[0], Shadow) else tensors[0]

    def all(self) -> set[str]:
        return {one for found in self.digests.values() for one in found}


def first_difference(obligation: ProofObligation, seed: int) -> Difference | None:
    """Run both graphs on shadows, and return their first difference; None if a program has no graph."""
    before, after = _Values(), _Values()
    variation = vary(obligation, obligation.general)
    try:
        with torch.no_grad():
            point, watch = SamplePoint(seed, 2), (before.note, after.note)
            lending(obligation, lambda lent: run_both(obligation, point, variation, lent, watch))
    except Undecided:
        return None
    if not after.digests:
        return None
    lost, new = _region(before.digests, after.all()), _region(after.digests, before.all())
    if not lost:
        return _goes_on(before.digests, new)
    first, second = _find_pair(lost, before, new, after) or (lost[0], None)
    return Difference(
        first.name,
        operator_name(first),
        source_of(first),
        tuple(n.name for n in lost),
        None if second is None else DifferingNode(second.name, operator_name(second), source_of(second)),
        tuple(_frontier(lost[: lost.index(first) + 1], before.digests, after.digests)),
        module_of(first),
    )


def _goes_on(before: Mapping[fx.Node, list[str]], new: Sequence[fx.Node]) -> Difference | None:
    """Return the difference of a second program that has all values of the first, and does something more to one."""
    computed = [n for n in before if n.op.startswith("call_")]
    if not new or not computed:
        return None
    last, second = computed[-1], new[0]
    after = DifferingNode(second.name, operator_name(second), source_of(second))
    return Difference(last.name, operator_name(last), source_of(last), (), after, (), module_of(last))


def _region(digests: Mapping[fx.Node, list[str]], present: set[str]) -> list[fx.Node]:
    """Return the computed values that an output or a write needs and the other graph lacks, in order.

    Parameters do not count: a correct fold removes them, too.
    """
    if not digests:
        return []

    def is_lost(node: fx.Node) -> bool:
        return not set(digests.get(node, ())) <= present

    nodes = list([*digests][-1].graph.nodes)
    region: set[fx.Node] = set()
    # Besides the outputs, what a graph that is not functional writes to its buffers and inputs.
    writers = [n for n in nodes if isinstance(n.target, OpOverload) and list_written(n.target)]
    frontier = [n for n in (*nodes[-1].all_input_nodes, *writers) if is_lost(n)]
    while frontier:
        node = frontier.pop()
        if node not in region:
            region.add(node)
            frontier += [n for n in node.all_input_nodes if is_lost(n)]
    return [n for n in nodes if n in region and n.op not in ("placeholder", "get_attr")]


def _frontier(
    region: Sequence[fx.Node], before: Mapping[fx.Node, list[str]], after: Mapping[fx.Node, list[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the computed values that ``region`` reads, each with a node of equal value in the other graph."""
    equal = {tuple(digests): node.name for node, digests in reversed([*after.items()])}
    read = {operand for node in region for operand in node.all_input_nodes}
    for node, digests in before.items():
        if node in read and node not in region and node.op == "call_function" and tuple(digests) in equal:
            yield node.name, equal[tuple(digests)]


def _find_pair(
    lost: Sequence[fx.Node], before: _Values, new: Sequence[fx.Node], after: _Values
) -> tuple[fx.Node, fx.Node] | None:
    """Return the first of the ``new`` values that is near a ``lost`` one, after the nearest of these.

    Equal operators on equal operands are a pair at any distance, and else any two operators on equal operands. An
    operator that reads another value of *before* than it did is not at fault: the pair is that of the operands.
    """
    for second in (n for n in new if n in after.numbers):
        numbers = [
            (_distance(before.numbers[first], after.numbers[second]), i, first)
            for i, first in enumerate(lost)
            if first in before.numbers
        ]
        distance, _, first = min(numbers, default=(math.inf, 0, second))
        if distance > MAX_PARTING_DISTANCE:
            if set(second.all_input_nodes) & set(new):
                continue
            alike = [a for a in lost if operator_name(a) == operator_name(second)]
            alike = alike or [a for a in lost if _reads(a, before) & _reads(second, after)]
            if not alike:
                continue
            first = alike[0]
        return _descend(first, second, lost, new)
    return next(((a, b) for a in lost for b in new if operator_name(a) == operator_name(b)), None)


def _reads(node: fx.Node, values: _Values) -> set[str]:
    """Return the digests of the operands, parameters left out."""
    operands = (n for n in node.all_input_nodes if n.op != "get_attr")
    return {one for operand in operands for one in values.digests.get(operand, ())}


def _descend(
    first: fx.Node, second: fx.Node, lost: Sequence[fx.Node], new: Sequence[fx.Node]
) -> tuple[fx.Node, fx.Node]:
    operands = [(a, b) for a, b in zip(first.args, second.args) if isinstance(a, fx.Node) and isinstance(b, fx.Node)]
    swapped = next(((a, b) for a, b in operands if a in lost and b not in new), None)
    return swapped if swapped is not None and operator_name(first) == operator_name(second) else (first, second)


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the difference's norm, relative to that of ``a``; infinite for unequal sizes and non-floating dtypes."""
    if a.numel() != b.numel() or not a.numel() or not (is_number(a.dtype) and a.is_complex() == b.is_complex()):
        return math.inf
    x, y = (t.detach().flatten().to(torch.complex128 if t.is_complex() else torch.float64) for t in (a, b))
    return float((x - y).norm() / x.norm()) if bool(x.norm() > 0) else math.inf


def _digest(t: Tensor) -> str:
    """Return a fingerprint of the elements in order, independent of the shape, so that views are the same value."""
    t = t.resolve_conj().resolve_neg()
    parts = t.residue.parts if isinstance(t, Shadow) else [t]
    real = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return digest([part.to(torch.int32 if isinstance(t, Shadow) else torch.float64) for part in real])
