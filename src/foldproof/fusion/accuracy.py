"""Accuracy of rewrites: a fold can be right over the real numbers and still lose digits in floating point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from foldproof.fusion.result import Accuracy
from foldproof.log import log_caught
from foldproof.program import Program, as_program, copied
from foldproof.rounding import Float64
from foldproof.rounding.float64 import widened


@dataclass(frozen=True)
class Measured:
    """A rewritten region, before and after. Its inputs are values that the original program computes.

    ``operands`` are the names of the original program's nodes with these values.
    """

    before: GraphModule
    after: GraphModule
    operands: tuple[str, ...]


class Values:
    """A map from each node to the original program's node with the same value."""

    def __init__(self) -> None:
        self._names: dict[Node, str | None] = {}

    def find_name(self, node: Node) -> str | None:
        """Return the name of the original node; None if no node had this value."""
        return self._names.get(node, node.name)

    def record(self, nodes: Sequence[Node], now: Mapping[Node, Node]) -> None:
        """Record that ``nodes`` have new values; ``now`` maps those with the old value of another node to that node."""
        new = {node: self.find_name(now[node]) if node in now else None for node in nodes}
        self._names |= new


def measure(
    program: Program, args: Sequence[Any], kwargs: Mapping[str, Any], regions: Sequence[Measured | None]
) -> list[Accuracy | None]:
    """Measure the `Accuracy` of each region in one run of the original program; None for regions that can't be run."""
    found: list[Accuracy | None] = [None] * len(regions)
    needed = [set(region.operands) if region is not None else set() for region in regions]
    waiting: dict[str, list[int]] = {}
    for i, names in enumerate(needed):
        for name in names:
            waiting.setdefault(name, []).append(i)
    values: dict[str, Tensor] = {}
    missing = [len(names) for names in needed]

    def watch(node: Node, value: Any) -> None:
        if node.name not in waiting or not isinstance(value, Tensor):
            return
        values[node.name] = value.detach().clone()  # a later node may write to it
        for i in waiting[node.name]:
            missing[i] -= 1
            region = regions[i]
            if not missing[i] and region is not None:
                found[i] = _measure_accuracy(region, [values[name] for name in region.operands])
        for name in [name for name in values if not any(missing[i] for i in waiting[name])]:
            del values[name]

    leaves = {name: leaf.tensor.detach().clone() for name, leaf in program.leaves.items()}
    try:
        with torch.no_grad():
            program.run(leaves, copied(tuple(args)), copied(dict(kwargs)), watch)
    except Exception as error:  # the proof of the whole program reports the reason
        log_caught(error, "measuring how accurate the folds are")
        return [None] * len(regions)
    return found


def _measure_accuracy(region: Measured, operands: Sequence[Tensor]) -> Accuracy | None:
    """Compute the relative errors (root mean square) before and after; of several results, those of the worst."""
    with torch.no_grad():
        before, after = (_run(module, operands, lambda t: t) for module in (region.before, region.after))
        with Float64():
            float64 = _run(region.before, operands, widened)
    identical = all(torch.equal(b, a) for b, a in zip(before, after, strict=True))
    worst: Accuracy | None = None
    for b, a, t in zip(before, after, float64, strict=True):
        scale = _compute_rms(t)
        if not t.is_floating_point() or not t.numel() or not scale or not bool(t.isfinite().all()):
            continue
        one = Accuracy(
            _compute_rms(b.double() - t) / scale,
            _compute_rms(a.double() - t) / scale,
            torch.finfo(b.dtype).eps,
            identical,
        )
        if worst is None or one.ratio > worst.ratio:
            worst = one
    return worst


def _run(module: GraphModule, operands: Sequence[Tensor], as_it_is: Callable[[Tensor], Tensor]) -> list[Tensor]:
    program = as_program(module)
    leaves = {name: as_it_is(leaf.tensor.detach()) for name, leaf in program.leaves.items()}
    return program.run(leaves, [as_it_is(x).clone() for x in operands], {}).outputs


def _compute_rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt()) if x.numel() else 0.0
