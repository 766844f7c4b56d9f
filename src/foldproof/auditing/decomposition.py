"""The operator whose decomposition is wrong, in a step that takes operators apart.

AOTAutograd traces each call of Dynamo's graph into several operators, and notes the call in each. Its value is computed
by the last of them that is read elsewhere. Both graphs are run on the same inputs; the first call whose value moves by
more than rounding is the one that is taken apart wrongly, and the operators that it dispatches to have the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from foldproof.auditing.inputs import find_inputs
from foldproof.auditing.log import Change
from foldproof.auditing.movement import distance
from foldproof.auditing.snapshot import Snapshot
from foldproof.generators import seed_generators
from foldproof.log import giving_up
from foldproof.program import as_program, copied
from foldproof.proof import run_on_copies
from foldproof.torch_internals import DispatchMode


def find_wrong_decomposition(change: Change, given: Sequence[Any]) -> str:
    """Return the ATen operators of the first call that a step takes apart wrongly; empty if that is not found."""
    with giving_up(f"looking for the decomposition in {change.name}"):
        inputs = find_inputs(change.before, given if change.inputs is None else change.inputs)
        if inputs is None:
            return ""
        before, operators = _run(change.before, inputs)
        after, _ = _run(change.after, inputs)
        for call, node in _pairs(change.before.graph, change.after.graph):
            a, b = before.get(call.name), after.get(node.name)
            if a is not None and b is not None and a.shape == b.shape and not distance(call.name, a, b, None).explained:
                return ", ".join(operators.get(call.name, ()))
    return ""


def _pairs(before: fx.Graph, after: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Return each call of *before* with the last node of *after* that was traced from it."""
    made = {_origin(node): node for node in after.nodes if node.op == "call_function"}
    return [(call, made[call.name]) for call in before.nodes if call.op.startswith("call_") and call.name in made]


def _origin(node: fx.Node) -> str:
    sources = node.meta.get("from_node") or ()
    return str(getattr(sources[0], "name", "")) if sources else ""


class _Operators(DispatchMode):
    """Operators in the order in which they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def _run(snapshot: Snapshot, inputs: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Return the value of each node, and the operators that it dispatched to."""
    values: dict[str, Tensor] = {}
    operators: dict[str, tuple[str, ...]] = {}
    seed_generators(0)
    with _Operators() as mode:

        def watch(node: fx.Node, out: Any) -> None:
            operators[node.name] = tuple(dict.fromkeys(mode.seen))
            if isinstance(out, Tensor):
                values[node.name] = out.detach().clone()
            mode.seen.clear()

        run_on_copies(as_program(snapshot.module), copied(tuple(inputs)), {}, watch=watch)
    return values, operators
