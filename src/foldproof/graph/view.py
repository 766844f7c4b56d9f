"""A graph as plain data: everything that a page needs to draw it without the program."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from foldproof.graph.text import Verbatim, map_nodes, operator_name, source_of
from foldproof.verdict import plain

MAX_ATTRIBUTE_CHARACTERS = 120
"""Largest length of an attribute's text: a list of a thousand sizes says no more than its beginning."""


@dataclass(frozen=True)
class NodeView:
    """One node. ``kind`` is input, constant, call or output; ``inputs`` are the names of the nodes that it reads.

    ``attributes`` are its other arguments as text, and ``module`` is the path of its module (``layers.0.conv``).
    ``shape`` has numbers, or the names of dynamic sizes, and is None if the value is no tensor. ``axes`` are those axes
    of the result along which the channels of a moved affine lie. ``differs`` marks a node that one of two graphs lacks.
    """

    name: str
    kind: str
    operator: str
    inputs: tuple[str, ...]
    attributes: str = ""
    shape: tuple[int | str, ...] | None = None
    dtype: str = ""
    module: str = ""
    source: str | None = None
    axes: tuple[int, ...] = ()
    differs: bool = False


@dataclass(frozen=True)
class GraphView:
    """A graph, its nodes in order. ``omitted`` counts the nodes left out, far from any difference."""

    nodes: tuple[NodeView, ...]
    omitted: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the view as plain JSON values, without a node's empty fields."""
        rows = ({k: v for k, v in asdict(node).items() if v not in ("", None, (), False)} for node in self.nodes)
        return {"nodes": [plain({"inputs": []} | row) for row in rows], "omitted": self.omitted}


def view_graph(
    program: ExportedProgram | fx.GraphModule | fx.Graph,
    axes: Mapping[str, Sequence[int]] | None = None,
    differs: Collection[fx.Node] = (),
    near: int | None = None,
) -> GraphView:
    """View the graph of ``program``.

    Args:
        axes: for names of nodes, the axes of a moved affine.
        differs: the nodes to mark.
        near: the number of nodes above which a graph is reduced to the nodes in ``differs`` and their neighbours.
    """
    graph = program if isinstance(program, fx.Graph) else program.graph
    constants = _constants(program) if isinstance(program, ExportedProgram) else {}
    nodes = list(graph.nodes)
    kept = nodes
    if near is not None and len(nodes) > near:
        close = {x for node in differs for x in (node, *node.all_input_nodes, *node.users)}
        kept = [node for node in nodes if node in close]
    marked = set(differs)
    views = tuple(_view(node, constants, (axes or {}).get(node.name, ()), node in marked) for node in kept)
    return GraphView(views, len(nodes) - len(kept))


def views_to_dict(before: GraphView, after: GraphView) -> dict[str, Any]:
    """Return two views, before and after a change, as plain JSON values."""
    return {"before": before.to_dict(), "after": after.to_dict()}


def _view(node: fx.Node, constants: Mapping[str, str], axes: Sequence[int], differs: bool) -> NodeView:
    kind = {"placeholder": "input", "get_attr": "constant", "output": "output"}.get(node.op, "call")
    operator = _operator(node)
    if node.name in constants:
        kind, operator = "constant", constants[node.name]
    value = node.meta.get("val", node.meta.get("example_value"))
    shape = tuple(_size(n) for n in value.shape) if isinstance(value, Tensor) else None
    return NodeView(
        name=node.name,
        kind=kind,
        operator=operator,
        inputs=tuple(dict.fromkeys(x.name for x in node.all_input_nodes)),
        attributes=_attributes(node) if kind == "call" else "",
        shape=shape,
        dtype=str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else "",
        module=_module(node) if kind == "call" else "",
        source=source_of(node) if kind == "call" else None,
        axes=tuple(axes),
        differs=differs,
    )


def _operator(node: fx.Node) -> str:
    """Return the callee; for a node of a method or a module, its name."""
    return operator_name(node) if node.op == "call_function" else str(node.target)


def _constants(program: ExportedProgram) -> dict[str, str]:
    """Map the placeholders of the program's tensors to the names of those."""
    specs = program.graph_signature.input_specs
    return {str(s.arg.name): s.target for s in specs if s.kind is not InputKind.USER_INPUT and s.target is not None}


def _size(size: int | torch.SymInt) -> int | str:
    return size if isinstance(size, int) else str(size)


def _attributes(node: fx.Node) -> str:
    """Return the arguments that are no nodes, as code; a node inside a list becomes a dot."""
    args, kwargs = map_nodes((node.args, node.kwargs), lambda _: Verbatim("·"))
    parts = [repr(a) for a in args if not isinstance(a, Verbatim)]
    parts += [f"{name}={value!r}" for name, value in kwargs.items() if not isinstance(value, Verbatim)]
    text = ", ".join(parts)
    return text if len(text) <= MAX_ATTRIBUTE_CHARACTERS else text[: MAX_ATTRIBUTE_CHARACTERS - 1] + "…"


def _module(node: fx.Node) -> str:
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if isinstance(path, str)]
    return re.sub(r"^[GL]\['\w+'\]\.?", "", stack[-1]) if stack else ""  # Dynamo's name of the model
