"""A graph as plain data, to be drawn: what people see of it when the program itself is gone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.node import _get_qualified_name

from foldproof.program.nodes import operator_name, source_of
from foldproof.verdict import plain

LONGEST = 120
"""Characters of the attributes of a node; a list of a thousand sizes says no more than its beginning."""


@dataclass(frozen=True)
class Box:
    """A node. ``kind`` is input, constant, call or output; ``inputs`` are the names of the nodes that it reads.

    ``attributes`` are its other arguments as text, ``module`` the path of the module it stands in (``layers.0.conv``).
    ``shape`` has numbers, or the names of dynamic sizes, and is None for what is no tensor. ``axes`` are those along
    which the channels of a moved affine lie on its result. ``differs`` marks what only one of two graphs computes.
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
class Drawing:
    """A graph, its nodes in order. ``omitted`` counts those that are left out, far from what matters."""

    boxes: tuple[Box, ...]
    omitted: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what a node has not is left out."""
        rows = ({k: v for k, v in asdict(box).items() if v not in ("", None, (), False)} for box in self.boxes)
        return {"nodes": [plain({"inputs": []} | row) for row in rows], "omitted": self.omitted}


def drawing(
    program: ExportedProgram | fx.GraphModule | fx.Graph,
    axes: Mapping[str, Sequence[int]] | None = None,
    differs: Collection[fx.Node] = (),
    near: int | None = None,
) -> Drawing:
    """The graph of ``program``.

    Args:
        axes: for names of nodes, the axes of a moved affine.
        differs: nodes to be marked.
        near: with so many nodes or fewer the whole graph is drawn, else only what ``differs`` and its neighbours.
    """
    graph = program if isinstance(program, fx.Graph) else program.graph
    constants = _constants(program) if isinstance(program, ExportedProgram) else {}
    nodes = list(graph.nodes)
    kept = nodes
    if near is not None and len(nodes) > near:
        close = {x for node in differs for x in (node, *node.all_input_nodes, *node.users)}
        kept = [node for node in nodes if node in close]
    marked = set(differs)
    boxes = tuple(_box(node, constants, (axes or {}).get(node.name, ()), node in marked) for node in kept)
    return Drawing(boxes, len(nodes) - len(kept))


def _box(node: fx.Node, constants: Mapping[str, str], axes: Sequence[int], differs: bool) -> Box:
    kind = {"placeholder": "input", "get_attr": "constant", "output": "output"}.get(node.op, "call")
    operator = _operator(node)
    if node.name in constants:
        kind, operator = "constant", constants[node.name]
    value = node.meta.get("val", node.meta.get("example_value"))
    shape = tuple(_size(n) for n in value.shape) if isinstance(value, Tensor) else None
    return Box(
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
    """What is called: of an operator its overload, of a Python function its qualified name; else the target."""
    if node.op == "call_function" and not isinstance(node.target, torch._ops.OpOverload):
        name = operator_name(node)
        return _get_qualified_name(node.target) if name.startswith("<") and callable(node.target) else name
    return operator_name(node) if node.op == "call_function" else str(node.target)


def _constants(program: ExportedProgram) -> dict[str, str]:
    """Placeholders that stand for what the program owns, and the names of that."""
    specs = program.graph_signature.input_specs
    return {str(s.arg.name): s.target for s in specs if s.kind is not InputKind.USER_INPUT and s.target is not None}


def _size(size: int | torch.SymInt) -> int | str:
    return size if isinstance(size, int) else str(size)


def _attributes(node: fx.Node) -> str:
    """Arguments that are no nodes, as they would be written; a node among them as a dot."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), _dot)
    parts = [repr(a) for a in args if not isinstance(a, _Dot)]
    parts += [f"{name}={value!r}" for name, value in kwargs.items() if not isinstance(value, _Dot)]
    text = ", ".join(parts)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _dot(node: fx.Node) -> Any:
    return _Dot()


class _Dot:
    def __repr__(self) -> str:
        return "·"


def _module(node: fx.Node) -> str:
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if isinstance(path, str)]
    return re.sub(r"^[GL]\['\w+'\]\.?", "", stack[-1]) if stack else ""  # Dynamo's name of the model
