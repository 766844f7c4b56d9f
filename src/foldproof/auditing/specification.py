"""Specifications of small models as data, which can be edited, built and written as Python.

A specification holds the graph and constructors for modules, tensors and inputs. Rules that fit on a line make all
numbers, so that a reproduction needs no other file.
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from foldproof.auditing.definitions import Unwritable
from foldproof.auditing.reading import written
from foldproof.auditing.snapshot import is_functional, take_snapshot
from foldproof.graph.module import get_attribute
from foldproof.graph.text import map_nodes, target_name
from foldproof.log import giving_up, log_caught
from foldproof.program.export import export_module
from foldproof.torch_internals import OpOverload, qualified_name

FILLS = ("ones", "arange", "centred", "mixed", "nan")
"""Rules for the numbers of inputs; "centred" counts from a negative number to the positive one, and "mixed" numbers are
in no order."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to make: its shape and dtype, and True for a parameter, False for a buffer or an input."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    parameter: bool = False

    def write_code(self, function: str) -> str:
        """Return an expression for it; ``function`` is one of `FILLS`, or empty."""
        dtype = "" if self.dtype is torch.float32 else f", dtype={self.dtype}"
        shape = ", ".join(map(str, self.shape))
        if function == "nan":
            function = "ones"
            if self.dtype.is_floating_point:
                return f"torch.full({self.shape}, float('nan'){dtype})"
        count = int(torch.Size(self.shape).numel())
        point = "." if self.dtype.is_floating_point else ""
        if function == "mixed":
            return f"(torch.arange({count}{point}{dtype}) * 37 % 101).reshape({shape})"
        if function in ("arange", "centred"):
            first = f"{-count}{point}, " if function == "centred" else ""
            return f"torch.arange({first}{count}{point}{', 2' if first else ''}{dtype}).reshape({shape})"
        return f"torch.{function}({shape}{dtype})" if self.shape else f"torch.{function}((){dtype})"


@dataclass(frozen=True)
class ModelSpec:
    """A model: ``graph`` over ``modules`` (name → constructor call in torch.nn) and ``tensors``."""

    graph: fx.Graph
    modules: Mapping[str, str]
    tensors: Mapping[str, TensorSpec]
    inputs: Sequence[TensorSpec]
    filled: str = "arange"
    """Rule for the inputs, one of `FILLS`."""
    lowest: int = 1
    """Smallest number in parameters and buffers: see `fill`."""
    held: Mapping[str, Tensor] | None = None
    """The model's own numbers, by name in its state_dict; None if `fill` makes all."""
    given: tuple[Tensor, ...] | None = None
    """The user's own inputs; None if they are made by a rule."""

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Build the model, in eval mode, and its inputs.

        Raises:
            Exception: a constructor fails.
        """
        root = nn.Module()
        for name, code in self.modules.items():
            root.add_module(name, eval(code, {"nn": nn, "torch": torch}))
        for name, made in self.tensors.items():
            tensor = torch.empty(made.shape, dtype=made.dtype)
            if made.parameter:
                root.register_parameter(name, nn.Parameter(tensor))
            else:
                root.register_buffer(name, tensor)
        model = fx.GraphModule(root, copy.deepcopy(self.graph)).eval()
        if self.held is None:
            fill(model, self.lowest)
        else:
            model.load_state_dict({name: self.held[name] for name in model.state_dict()})
        if self.given is not None:
            return model, tuple(x.clone() for x in self.given)
        return model, tuple(eval(made.write_code(self.filled), {"torch": torch}) for made in self.inputs)

    @property
    def written(self) -> bool:
        """True if rules make all numbers, so that the model can be written as Python."""
        return self.held is None and self.given is None

    def prune(self) -> ModelSpec:
        """Return it without nodes that no output needs, and without the modules and tensors that only they used."""
        graph = copy.deepcopy(self.graph)
        graph.eliminate_dead_code(is_impure_node=_stays)
        kept = [bool(n.users) for n in graph.nodes if n.op == "placeholder"]
        for node in [n for n in graph.nodes if n.op == "placeholder" and not n.users]:
            graph.erase_node(node)
        used = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
        return replace(
            self,
            graph=graph,
            modules={name: code for name, code in self.modules.items() if name in used},
            tensors={name: made for name, made in self.tensors.items() if name in used},
            inputs=[made for made, keep in zip(self.inputs, kept) if keep],
            given=None if self.given is None else tuple(x for x, keep in zip(self.given, kept) if keep),
        )


FILL = (
    "for i, t in enumerate(model.state_dict().values()):"
    " t.copy_(torch.linspace({}, 2 + i % 7, t.numel()).view(t.shape))"
)


def _stays(node: fx.Node) -> bool:
    return node.op in ("placeholder", "output") or (node.op != "call_module" and not is_functional(node))


def fill(model: nn.Module, lowest: int) -> None:
    """Fill all parameters and buffers with small numbers from ``lowest`` up, so that channels and layers differ.

    From 1 up, variances are positive; from -1 up, both signs occur, for models without variances.
    """
    exec(FILL.format(lowest), {"torch": torch, "model": model})


def specify_model(model: nn.Module, inputs: Sequence[Any]) -> list[ModelSpec]:
    """Specify the model, in order of preference: traced with its modules, and exported to ATen operators."""
    specs = []
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if len(tensors) != len(inputs):
        return []
    made = [TensorSpec(tuple(x.shape), x.dtype) for x in tensors]
    with giving_up("specifying the traced model"):
        traced = fx.symbolic_trace(copy.deepcopy(model))
        specs.append(_specify_graph(traced.graph, traced, made, tensors))
    with giving_up("specifying the exported model"):
        exported = take_snapshot(export_module(model, inputs))
        specs.append(_specify_graph(exported.graph, exported.module, made, tensors))
    return specs


def _specify_graph(
    source: fx.Graph, module: nn.Module, inputs: Sequence[TensorSpec], given: Sequence[Tensor]
) -> ModelSpec:
    graph = copy.deepcopy(source)
    graph.eliminate_dead_code(is_impure_node=_stays)
    modules: dict[str, str] = {}
    tensors: dict[str, TensorSpec] = {}
    names: dict[str, str] = {}
    held: dict[str, Tensor] = {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        target = str(node.target)
        name = names.setdefault(target, re.sub(r"\W", "_", target if not target[0].isdigit() else f"m{target}"))
        value = get_attribute(module, target)
        node.target = name
        if isinstance(value, nn.Module):
            if not type(value).__module__.startswith("torch.nn.modules"):
                raise Unwritable(f"{target} is not a module of torch.nn")
            modules[name] = shorten(f"nn.{value!r}")
            held |= {f"{name}.{n}": t for n, t in value.state_dict().items()}
        elif isinstance(value, Tensor) and value.dtype.is_floating_point:
            tensors[name] = TensorSpec(tuple(value.shape), value.dtype, isinstance(value, nn.Parameter))
            held[name] = value.detach()
        else:
            raise Unwritable(f"{target} is not a floating-point tensor")
    _unwrap_output(graph)
    return ModelSpec(graph, modules, tensors, list(inputs), held=held, given=tuple(given)).prune()


def _unwrap_output(graph: fx.Graph) -> None:
    output = next(n for n in graph.nodes if n.op == "output")
    value = output.args[0]
    if isinstance(value, (tuple, list)) and len(value) == 1:
        output.args = (value[0],)


def shorten(code: str) -> str:
    """Shorten a constructor call: leave out argument names and defaults as far as the module stays the same."""

    def same(shorter: str) -> bool:
        try:
            return repr(eval(shorter, {"nn": nn, "torch": torch})) == repr(eval(code, {"nn": nn, "torch": torch}))
        except Exception as error:  # that argument is required
            log_caught(error, f"making {shorter}")
            return False

    now = code
    for part in re.findall(r", \w+=(?:\([^)]*\)|[^,()]+)", code):
        if same(now.replace(part, "", 1)):
            now = now.replace(part, "", 1)
    for part in re.findall(r"\w+=(?:\([^)]*\)|[^,()]+)(?:, )?", now):  # arguments, the first included
        if same(now.replace(part, "", 1)):
            now = now.replace(part, "", 1)
    for name in re.findall(r"\w+=", now):
        if same(now.replace(name, "", 1)):
            now = now.replace(name, "", 1)
    for pair in re.findall(r"\((\d+)(?:, \1)+\)", now):
        together = re.search(rf"\({pair}(?:, {pair})+\)", now)
        if together and same(now.replace(together[0], pair, 1)):
            now = now.replace(together[0], pair, 1)
    return now


def write_lines(spec: ModelSpec) -> list[str]:
    """Write ``model`` and ``inputs`` as lines of Python."""
    given = ", ".join(made.write_code(spec.filled) for made in spec.inputs)
    inputs = f"({given},)" if len(spec.inputs) == 1 else f"({given})"
    chain = _find_chain(spec)
    if chain is not None:
        return [f"model, inputs = nn.Sequential({', '.join(chain)}).eval(), {inputs}", FILL.format(spec.lowest)]
    names = [n.name for n in spec.graph.nodes if n.op == "placeholder"]
    held = [f"        {line}" for line in _write_attributes(spec)]
    return [
        "class Model(nn.Module):",
        *(["    def __init__(self):", "        super().__init__()", *held] if held else []),
        f"    def forward({', '.join(['self', *names])}):",
        *[f"        {line}" for line in write_body(spec.graph)],
        f"model, inputs = Model().eval(), {inputs}",
        *([FILL.format(spec.lowest)] if held else []),
    ]


def _write_attributes(spec: ModelSpec) -> list[str]:
    """Write the assignments of ``__init__``: one line for attributes made alike, or for all if they fit."""
    made = dict(spec.modules)
    made |= {n: f"nn.Parameter({t.write_code('empty')})" for n, t in spec.tensors.items() if t.parameter}
    alike: dict[str, list[str]] = {}
    for name, code in made.items():
        alike.setdefault(code, []).append(name)
    out = [f"{', '.join(f'self.{n}' for n in made)} = {', '.join(made.values())}"] if made else []
    if made and (len(out[0]) > 104 or len(made) > 4):
        out = []
        for code, names in alike.items():
            value = code if len(names) == 1 else f"({code} for _ in range({len(names)}))"
            out.append(f"{', '.join(f'self.{n}' for n in names)} = {value}")
    buffers = [n for n, t in spec.tensors.items() if not t.parameter]
    return out + [f"self.register_buffer({n!r}, {spec.tensors[n].write_code('empty')})" for n in buffers]


def _find_chain(spec: ModelSpec) -> list[str] | None:
    """List the modules of a model that applies one after another to its input, each once; None for other models."""
    nodes = [n for n in spec.graph.nodes if n.op not in ("placeholder", "output")]
    places = [n for n in spec.graph.nodes if n.op == "placeholder"]
    targets = [n.target for n in nodes]
    if len(places) != 1 or any(n.op != "call_module" for n in nodes) or len(set(targets)) < len(targets):
        return None
    last = places[0]
    for node in nodes:
        if node.args != (last,) or node.kwargs:
            return None
        last = node
    output = next(n for n in spec.graph.nodes if n.op == "output")
    return [spec.modules[t] for t in targets] if output.args == (last,) else None


def write_body(graph: fx.Graph) -> list[str]:
    """Write a graph as statements; a value that is read once is inlined, unless a write lies in between."""
    out: list[str] = []
    text: dict[fx.Node, str] = {}
    nodes = list(graph.nodes)
    impure = [i for i, n in enumerate(nodes) if n.op == "call_method" and not is_functional(n)]
    impure += [i for i, n in enumerate(nodes) if n.op == "call_function" and not is_functional(n)]
    for i, node in enumerate(nodes):
        if node.op == "placeholder":
            text[node] = node.name
        elif node.op == "output":
            out.append(f"return {_write_value(node.args[0], text)}")
        elif node.op == "get_attr":
            text[node] = f"self.{node.target}"
        else:
            code = _write_call(node, text)
            readers = [nodes.index(u) for u in node.users]
            once = sum(u.all_input_nodes.count(node) for u in node.users) == 1 and _count_mentions(node) == 1
            if once and not any(i <= j < readers[0] for j in impure):
                text[node] = code
            elif node.users:
                text[node] = node.name
                out.append(f"{node.name} = {code}")
            else:
                out.append(code)
    return out


def _count_mentions(node: fx.Node) -> int:
    count = 0

    def see(n: fx.Node) -> fx.Node:
        nonlocal count
        count += n is node
        return n

    for user in node.users:
        map_nodes((user.args, user.kwargs), see)
    return count


_INFIX = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.matmul: "@"}


def _write_value(value: Any, text: Mapping[fx.Node, str]) -> str:
    return written(value, text.__getitem__)


def _write_call(node: fx.Node, text: Mapping[fx.Node, str]) -> str:
    args = [_write_value(a, text) for a in node.args]
    given = ", ".join([*args, *(f"{k}={_write_value(v, text)}" for k, v in node.kwargs.items())])
    if node.op == "call_module":
        return f"self.{node.target}({given})"
    if node.op == "call_method":
        return f"{args[0]}.{node.target}({given.removeprefix(args[0]).removeprefix(', ')})"
    if node.target in _INFIX and len(args) == 2:
        return f"({args[0]} {_INFIX[node.target]} {args[1]})"
    if node.target is operator.getitem:
        return f"{args[0]}[{args[1]}]"
    return f"{name_function(node.target)}({given})"


def name_function(target: Any) -> str:
    """Return the name of a function in Python, where torch and F are imported."""
    name = getattr(target, "__name__", "")
    if isinstance(target, OpOverload):
        return f"torch.ops.{target}"
    if getattr(F, name, None) is target or (name and "_C._nn" in target_name(target) and hasattr(F, name)):
        return f"F.{name}"
    if getattr(torch, name, None) is target:
        return f"torch.{name}"
    return qualified_name(target).removeprefix("_")  # functions of operator are in module _operator
