"""A small model as data: its graph, and how its modules, tensors and inputs are made; to be changed, built, written.

All numbers are made by rules that fit on a line, so that a program that shows a fault needs no file beside it.
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
from foldproof.auditing.snapshot import is_functional, snapshot_of
from foldproof.graph.module import get_attribute
from foldproof.graph.text import map_nodes, target_name
from foldproof.log import giving_up, log_caught
from foldproof.torch_internals import OpOverload, qualified_name


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be made: its shape and dtype, and whether it is a parameter (else a buffer, or an input)."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    parameter: bool = False

    def code(self, function: str) -> str:
        """The expression that makes it; ``function`` is one of ones, arange, centred (arange around 0), empty."""
        dtype = "" if self.dtype is torch.float32 else f", dtype={self.dtype}"
        shape = ", ".join(map(str, self.shape))
        if function in ("arange", "centred"):
            count = int(torch.Size(self.shape).numel())
            point = "." if self.dtype.is_floating_point else ""
            first = f"{-count}{point}, " if function == "centred" else ""
            return f"torch.arange({first}{count}{point}{', 2' if first else ''}{dtype}).reshape({shape})"
        return f"torch.{function}({shape}{dtype})" if self.shape else f"torch.{function}((){dtype})"


@dataclass(frozen=True)
class ModelSpec:
    """A model: ``graph`` over ``modules`` (name → constructor call below torch.nn) and ``tensors``."""

    graph: fx.Graph
    modules: Mapping[str, str]
    tensors: Mapping[str, TensorSpec]
    inputs: Sequence[TensorSpec]
    filled: str = "arange"
    """How inputs are made: ones, arange or centred."""
    lowest: int = 1
    """The smallest number in parameters and buffers: see `fill`."""
    held: Mapping[str, Tensor] | None = None
    """The model's own numbers, by name in its state_dict; without them all are made by `fill`."""
    given: tuple[Tensor, ...] | None = None
    """The inputs' own numbers."""

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The model in eval mode and its inputs.

        Raises:
            Exception: a module can't be made like this.
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
        return model, tuple(eval(made.code(self.filled), {"torch": torch}) for made in self.inputs)

    @property
    def written(self) -> bool:
        """Whether all its numbers are made by rules, so that it can be written down."""
        return self.held is None and self.given is None

    def pruned(self) -> ModelSpec:
        """Without nodes that no output needs, and what only they used."""
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
    """Small numbers from ``lowest`` up in all parameters and buffers, so that neither channels nor layers are alike.

    From 1 up variances are positive; from -1 up there are numbers of both signs, for models without variances.
    """
    exec(FILL.format(lowest), {"torch": torch, "model": model})


def drafted(model: nn.Module, inputs: Sequence[Any]) -> list[ModelSpec]:
    """The model as drafts, in order of preference: traced with its modules, and as ATen operators."""
    drafts = []
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if len(tensors) != len(inputs):
        return []
    made = [TensorSpec(tuple(x.shape), x.dtype) for x in tensors]
    with giving_up("drafting the traced model"):
        traced = fx.symbolic_trace(copy.deepcopy(model))
        drafts.append(_draft(traced.graph, traced, made, tensors))
    with giving_up("drafting the exported model"):
        exported = snapshot_of(torch.export.export(model, tuple(inputs)))
        drafts.append(_draft(exported.graph, exported.module, made, tensors))
    return drafts


def _draft(source: fx.Graph, module: nn.Module, inputs: Sequence[TensorSpec], given: Sequence[Tensor]) -> ModelSpec:
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
                raise Unwritable(f"{target} is no module of torch.nn")
            modules[name] = shortest(f"nn.{value!r}")
            held |= {f"{name}.{n}": t for n, t in value.state_dict().items()}
        elif isinstance(value, Tensor) and value.dtype.is_floating_point:
            tensors[name] = TensorSpec(tuple(value.shape), value.dtype, isinstance(value, nn.Parameter))
            held[name] = value.detach()
        else:
            raise Unwritable(f"{target} is no floating-point tensor")
    _unwrap_output(graph)
    return ModelSpec(graph, modules, tensors, list(inputs), held=held, given=tuple(given)).pruned()


def _unwrap_output(graph: fx.Graph) -> None:
    output = next(n for n in graph.nodes if n.op == "output")
    value = output.args[0]
    if isinstance(value, (tuple, list)) and len(value) == 1:
        output.args = (value[0],)


def shortest(code: str) -> str:
    """A constructor call that makes the same module, without names and defaults that go without saying."""

    def same(shorter: str) -> bool:
        try:
            return repr(eval(shorter, {"nn": nn, "torch": torch})) == repr(eval(code, {"nn": nn, "torch": torch}))
        except Exception as error:  # it is not valid without that argument
            log_caught(error, f"making {shorter}")
            return False

    now = code
    for part in re.findall(r", \w+=(?:\([^)]*\)|[^,()]+)", code):
        if same(now.replace(part, "", 1)):
            now = now.replace(part, "", 1)
    for part in re.findall(r"\w+=(?:\([^)]*\)|[^,()]+)(?:, )?", now):  # the first one, too
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


def lines(draft: ModelSpec) -> list[str]:
    """``model`` and ``inputs`` in Python."""
    given = ", ".join(made.code(draft.filled) for made in draft.inputs)
    inputs = f"({given},)" if len(draft.inputs) == 1 else f"({given})"
    chain = _chain(draft)
    if chain is not None:
        return [f"model, inputs = nn.Sequential({', '.join(chain)}).eval(), {inputs}", FILL.format(draft.lowest)]
    names = [n.name for n in draft.graph.nodes if n.op == "placeholder"]
    held = [f"        {line}" for line in _attributes(draft)]
    return [
        "class Model(nn.Module):",
        *(["    def __init__(self):", "        super().__init__()", *held] if held else []),
        f"    def forward({', '.join(['self', *names])}):",
        *[f"        {line}" for line in body(draft.graph)],
        f"model, inputs = Model().eval(), {inputs}",
        *([FILL.format(draft.lowest)] if held else []),
    ]


def _attributes(draft: ModelSpec) -> list[str]:
    """What ``__init__`` sets: attributes that are made alike in one line, and all in one if they fit."""
    made = dict(draft.modules)
    made |= {n: f"nn.Parameter({t.code('empty')})" for n, t in draft.tensors.items() if t.parameter}
    alike: dict[str, list[str]] = {}
    for name, code in made.items():
        alike.setdefault(code, []).append(name)
    out = [f"{', '.join(f'self.{n}' for n in made)} = {', '.join(made.values())}"] if made else []
    if made and (len(out[0]) > 104 or len(made) > 4):
        out = []
        for code, names in alike.items():
            value = code if len(names) == 1 else f"({code} for _ in range({len(names)}))"
            out.append(f"{', '.join(f'self.{n}' for n in names)} = {value}")
    buffers = [n for n, t in draft.tensors.items() if not t.parameter]
    return out + [f"self.register_buffer({n!r}, {draft.tensors[n].code('empty')})" for n in buffers]


def _chain(draft: ModelSpec) -> list[str] | None:
    """The modules of a model that only passes its input through one after the other, each used once."""
    nodes = [n for n in draft.graph.nodes if n.op not in ("placeholder", "output")]
    places = [n for n in draft.graph.nodes if n.op == "placeholder"]
    targets = [n.target for n in nodes]
    if len(places) != 1 or any(n.op != "call_module" for n in nodes) or len(set(targets)) < len(targets):
        return None
    last = places[0]
    for node in nodes:
        if node.args != (last,) or node.kwargs:
            return None
        last = node
    output = next(n for n in draft.graph.nodes if n.op == "output")
    return [draft.modules[t] for t in targets] if output.args == (last,) else None


def body(graph: fx.Graph) -> list[str]:
    """A graph as statements; what is read once is written where it is read, if nothing is written to in between."""
    out: list[str] = []
    text: dict[fx.Node, str] = {}
    nodes = list(graph.nodes)
    impure = [i for i, n in enumerate(nodes) if n.op == "call_method" and not is_functional(n)]
    impure += [i for i, n in enumerate(nodes) if n.op == "call_function" and not is_functional(n)]
    for i, node in enumerate(nodes):
        if node.op == "placeholder":
            text[node] = node.name
        elif node.op == "output":
            out.append(f"return {_text(node.args[0], text)}")
        elif node.op == "get_attr":
            text[node] = f"self.{node.target}"
        else:
            code = _call(node, text)
            readers = [nodes.index(u) for u in node.users]
            once = sum(u.all_input_nodes.count(node) for u in node.users) == 1 and _mentions(node) == 1
            if once and not any(i <= j < readers[0] for j in impure):
                text[node] = code
            elif node.users:
                text[node] = node.name
                out.append(f"{node.name} = {code}")
            else:
                out.append(code)
    return out


def _mentions(node: fx.Node) -> int:
    count = 0

    def see(n: fx.Node) -> fx.Node:
        nonlocal count
        count += n is node
        return n

    for user in node.users:
        map_nodes((user.args, user.kwargs), see)
    return count


_INFIX = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.matmul: "@"}


def _text(value: Any, text: Mapping[fx.Node, str]) -> str:
    return written(value, text.__getitem__)


def _call(node: fx.Node, text: Mapping[fx.Node, str]) -> str:
    args = [_text(a, text) for a in node.args]
    given = ", ".join([*args, *(f"{k}={_text(v, text)}" for k, v in node.kwargs.items())])
    if node.op == "call_module":
        return f"self.{node.target}({given})"
    if node.op == "call_method":
        return f"{args[0]}.{node.target}({given.removeprefix(args[0]).removeprefix(', ')})"
    if node.target in _INFIX and len(args) == 2:
        return f"({args[0]} {_INFIX[node.target]} {args[1]})"
    if node.target is operator.getitem:
        return f"{args[0]}[{args[1]}]"
    return f"{function_name(node.target)}({given})"


def function_name(target: Any) -> str:
    """How a function is called in Python, where torch and F are imported."""
    name = getattr(target, "__name__", "")
    if isinstance(target, OpOverload):
        return f"torch.ops.{target}"
    if getattr(F, name, None) is target or (name and "_C._nn" in target_name(target) and hasattr(F, name)):
        return f"F.{name}"
    if getattr(torch, name, None) is target:
        return f"torch.{name}"
    return qualified_name(target).removeprefix("_")  # operator's functions say _operator
