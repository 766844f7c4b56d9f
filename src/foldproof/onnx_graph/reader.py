"""ONNX models as graphs of PyTorch: a node for each node of the model, which calls the operator's definition."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.errors import FoldproofError, MissingExtra, brief
from foldproof.graph.module import get_attribute, set_attribute
from foldproof.onnx_graph.functions import is_function, written_out
from foldproof.onnx_graph.registry import DEFINITIONS, DTYPES, Definition, NotTranslated, dtype_of

_OLDEST = 13
"""The first version whose softmax is along one axis, and whose sums have their axes as an input."""

Held = dict[int, tuple[Any, Tensor]]
"""Constants of models, and their tensors, by id: readings of one model at several times share their tensors."""


def read_graph(model: Any, where: str = "the ONNX model", held: Held | None = None) -> fx.GraphModule:
    """Return an ONNX model as a graph module, whose inputs and outputs are those of the model, in its order.

    A node has the name of the model's node. Floating-point initializers are parameters, others buffers, by their names.

    Args:
        model: an ``onnx_ir.Model``, an ``onnx.ModelProto``, or the path of a file; weights beside it are read, too.
        where: the name of the model in messages.
        held: a record of constants, if their tensors are to be shared with other readings.

    Raises:
        MissingExtra: the package onnx_ir is not installed.
        NotTranslated: an operator has no definition (`foldproof.onnx_graph.DEFINITIONS`).
        FoldproofError: the file is no ONNX model.
    """
    if isinstance(model, (str, Path)):
        model = load_model(model)
    elif type(model).__name__ == "ModelProto":
        import onnx_ir

        model = onnx_ir.from_proto(model)
    if model.functions:
        from onnx_ir.passes.common import InlinePass

        try:
            model = InlinePass()(model.clone()).model
        except Exception as error:
            raise NotTranslated(f"the functions of {where} can't be inlined ({brief(error)})") from error
    return _Reader(model, where, {} if held is None else held).read()


def draw_inputs(path: Path) -> tuple[Tensor, ...]:
    """Draw inputs for an ONNX file from the standard normal distribution; sizes that it leaves open are 2.

    Raises:
        MissingExtra, FoldproofError: as `read_graph`; or an input is of whole numbers, whose range is not known.
    """
    graph = load_model(path).graph
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for given in graph.inputs:
        if given.name in graph.initializers:
            continue
        dtype = dtype_of(int(given.dtype or 0))
        if not dtype.is_floating_point:
            raise FoldproofError(
                f"{path} takes whole numbers ({given.name}), and no values are known for them; give them in Python, as"
                " foldproof.prove(A, B, inputs)"
            )
        sizes = [n if isinstance(n, int) else 2 for n in given.shape or ()]
        drawn.append(torch.randn(sizes, generator=generator).to(dtype))
    return tuple(drawn)


def load_model(path: str | Path) -> Any:
    """Return the ``onnx_ir.Model`` of a file; raises as `read_graph`."""
    try:
        import onnx_ir
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "onnx") from None
    try:
        return onnx_ir.load(str(path))
    except Exception as error:
        raise FoldproofError(f"{path} can't be read as an ONNX model ({brief(error)})") from error


class _Reader:
    """Reads a graph; one inside of another graph, the ``outer`` one's reader, as a part that control flow runs."""

    def __init__(self, model: Any, where: str, held: Held, outer: _Reader | None = None) -> None:
        self._model, self._where, self._held, self._outer = model, where, held, outer
        self._graph, self._root = fx.Graph(), nn.Module()
        self._names = set[str]()
        self._values: dict[int, fx.Node] = {}
        self._taken: dict[fx.Node, fx.Node] = {}
        """Nodes of the outer graph, and the inputs that stand for them."""
        self._keep: list[Any] = []
        """Graphs whose values are told apart by their ids."""
        self._versions: dict[str, int] = dict(model.opset_imports)
        self._wide: bool = _computes_in_float64(model.graph)
        version = min((v for domain, v in self._versions.items() if domain in ("", "ai.onnx")), default=_OLDEST)
        if version < _OLDEST:
            raise NotTranslated(
                f"{where} is of version {version} of ONNX's operators; export it with version {_OLDEST} or later"
            )

    def read(self) -> fx.GraphModule:
        graph = self._model.graph
        for given in graph.inputs:
            if given.name not in graph.initializers:
                self._require_tensor(given)
                node = self._values[id(given)] = self._graph.placeholder(identifier(given.name))
                node.meta["declared"] = given.name, dtype_of(int(given.dtype)), tuple(given.shape or ())
        self._add_all(graph)
        made = [self._value(result) for result in graph.outputs]
        self._graph.output(made[0] if len(made) == 1 else tuple(made))
        return fx.GraphModule(self._root, self._graph)

    def read_part(self, graph: Any) -> tuple[fx.GraphModule, list[fx.Node]]:
        """Return a graph inside of the outer one, and the nodes of the outer one that it takes as its last inputs."""
        for given in graph.inputs:
            self._values[id(given)] = self._graph.placeholder(identifier(given.name))
        self._add_all(graph)
        self._graph.output(tuple(self._value(result) for result in graph.outputs))
        return fx.GraphModule(self._root, self._graph), list(self._taken)

    def _add_all(self, graph: Any) -> None:
        for name, value in graph.initializers.items():
            self._values[id(value)] = self._constant(name, value.const_value)
        for node in graph:
            self._add(node)

    def _value(self, value: Any) -> fx.Node:
        """Return the node of a value; in a part, an input for what the outer graph has."""
        if id(value) not in self._values:
            if self._outer is None:
                raise NotTranslated(f"{self._where}: the value {value.name} is not made by any node")
            self._values[id(value)] = self._take(self._outer._value(value))
        return self._values[id(value)]

    def _take(self, node: fx.Node) -> fx.Node:
        """Return the input of this part that stands for a node of the outer graph."""
        if node not in self._taken:
            last = max((n for n in self._graph.nodes if n.op == "placeholder"), default=None)
            with self._graph.inserting_after(last) if last is not None else self._graph.inserting_before():
                self._taken[node] = self._graph.placeholder(f"taken_{node.name}")
        return self._taken[node]

    def _require_tensor(self, given: Any) -> None:
        if given.dtype is None or type(given.type).__name__ != "TensorType":
            raise NotTranslated(f"the input {given.name} of {self._where} is no tensor")
        dtype_of(int(given.dtype))

    def _hold(self, name: str, tensor: Tensor) -> fx.Node:
        """Hold a constant under its name, which is that of a parameter in PyTorch, if it is one and is free."""
        if self._outer is not None:
            return self._take(self._outer._hold(name, tensor))
        path = (
            name if _is_path(name) and self._is_free(name) else free_name(f"constant_{identifier(name)}", self._names)
        )
        self._names.add(path)
        set_attribute(self._root, path, parameter_of(tensor))
        return self._graph.get_attr(path)

    def _is_free(self, path: str) -> bool:
        """Return True if neither the path, nor a part of it, nor one that it is a part of, is taken."""
        above = {path[:i] for i, c in enumerate(path) if c == "."}
        return not (above & self._names) and not any(x == path or x.startswith(f"{path}.") for x in self._names)

    def _tensor(self, constant: Any) -> Tensor:
        """Return the numbers of a constant."""
        if id(constant) not in self._held:
            self._held[id(constant)] = constant, _numbers(constant)
        return self._held[id(constant)][1]

    def _add(self, node: Any) -> None:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self._values[id(node.outputs[0])] = self._written(node)
            return
        if is_function(node.domain, node.op_type, self._versions.get(node.domain, _OLDEST)):
            self._add_function(node)
            return
        if node.op_type == "Cast" and not node.domain and self._value(node.inputs[0]).target is single:
            given = self._value(node.inputs[0])
            made = single(*given.args, **given.kwargs)
            self._values[id(node.outputs[0])] = self._single(made.to(dtype_of(node.attributes["to"].value)))
            return
        definition = self._definition(node)
        operands = [self._operand(x, i in definition.numbers) for i, x in enumerate(node.inputs)]
        while operands and operands[-1] is None:
            operands.pop()
        least, most = definition.operands
        if len(operands) < least or (most is not None and len(operands) > most):
            raise NotTranslated(f"{self._place(node)}: an operator with {len(operands)} inputs has no definition")
        unknown = sorted(node.attributes.keys() - definition.attributes)
        if unknown:
            raise NotTranslated(f"{self._place(node)}: the attribute {unknown[0]} has no definition")
        attributes: dict[str, Any] = {}
        for name, attribute in node.attributes.items():
            if attribute.type.name == "GRAPH":
                attributes[name], attributes[f"{name}_takes"] = self._part(node, attribute)
            else:
                attributes[name] = self._argument(node, attribute)
        if definition.counts:
            attributes["outputs"] = len(node.outputs)
        name = identifier(node.name or f"{node.op_type}_{node.outputs[0].name}")
        made = self._graph.create_node("call_function", definition.function, tuple(operands), attributes, name)
        for i, result in enumerate(node.outputs):
            at = self._graph.call_function(item_of, (made, i)) if definition.several else made
            self._values[id(result)] = at

    def _part(self, node: Any, attribute: Any) -> tuple[fx.Node, list[fx.Node]]:
        """Return the node that holds a part of a graph, and the nodes that it takes."""
        reader = _Reader(self._model, f"{attribute.name} of {self._place(node)}", self._held, self)
        part, takes = reader.read_part(attribute.value)
        self._keep += [reader._keep, attribute.value]
        path = free_name(identifier(f"{node.name or node.outputs[0].name}_{attribute.name}"), self._names)
        self._names.add(path)
        self._root.add_module(path, part)
        return self._graph.get_attr(path), takes

    def _add_function(self, node: Any) -> None:
        """Add the nodes that an operator stands for."""
        graph = written_out(node, self._versions)
        self._keep.append(graph)
        given = {value.name: value for value in node.inputs if value is not None}
        for value in graph.inputs:
            self._values[id(value)] = self._value(given[value.name])
        self._add_all(graph)
        made = {value.name: value for value in graph.outputs}
        for value in node.outputs:
            if value.name:
                self._values[id(value)] = self._value(made[value.name])

    def _operand(self, value: Any, numbers: bool) -> Any:
        """Return the node of an input; of `Numbers` that are constants, the numbers."""
        if value is None:
            return None
        node = self._value(value)
        if numbers:
            reader, source = self._source(node)
            if source.target is single:
                return [source.args[0]]
            if source.op == "get_attr":
                return get_attribute(reader._root, str(source.target)).flatten().tolist()
        return node

    def _source(self, node: fx.Node) -> tuple[_Reader, fx.Node]:
        """Return the node that an input of a part stands for, and the reader of its graph."""
        for source, own in self._taken.items():
            if own is node:
                assert self._outer is not None
                return self._outer._source(source)
        return self, node

    def _definition(self, node: Any) -> Definition:
        domain = "" if node.domain == "ai.onnx" else node.domain
        found = DEFINITIONS.get((domain, node.op_type))
        if found is None:
            raise NotTranslated(f"{self._place(node)}: the operator has no definition")
        return found

    def _place(self, node: Any) -> str:
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        return f"{self._where}, node {node.name or node.outputs[0].name} ({operator})"

    def _argument(self, node: Any, attribute: Any) -> Any:
        """Return the value of an attribute as Python has it; of a tensor, the node that holds it."""
        kind = attribute.type.name
        if kind == "TENSOR":
            return self._constant(f"{node.outputs[0].name}.{attribute.name}", attribute.value)
        if kind == "FLOAT":
            return self._number(attribute.value)
        if kind == "FLOATS":
            return tuple(map(self._number, attribute.value))
        if kind in ("INT", "STRING"):
            return attribute.value
        if kind in ("INTS", "STRINGS"):
            return tuple(attribute.value)
        raise NotTranslated(f"{self._place(node)}: the attribute {attribute.name} has no definition")

    def _number(self, x: float) -> float:
        """Return a number that ONNX holds in float32: the shortest decimal that float32 rounds to it.

        Kernels in float32 compute with the same number. So 1e-5 is what the model's author wrote, and PyTorch's own.
        """
        return float(x) if self._wide else float(str(torch.tensor(x, dtype=torch.float32).numpy()))

    def _constant(self, name: str, constant: Any) -> fx.Node:
        """Return the node of a constant; a single number that is no parameter of PyTorch's is part of the program."""
        tensor = self._tensor(constant)
        if tensor.numel() == 1 and not _is_parameter(constant):
            return self._single(tensor)
        return self._hold(name, tensor)

    def _single(self, tensor: Tensor) -> fx.Node:
        number = next(number for number, dtype in DTYPES.items() if dtype is tensor.dtype)
        return self._graph.call_function(single, (tensor.item(), tuple(tensor.shape)), {"to": number})

    def _number_or_held(self, node: Any, tensor: Tensor) -> fx.Node:
        return self._single(tensor) if tensor.numel() == 1 else self._hold(node.outputs[0].name, tensor)

    def _written(self, node: Any) -> fx.Node:
        """Return the node of the tensor that a node ``Constant`` has."""
        name, attribute = next(iter(node.attributes.items()))
        if name == "value":
            return self._constant(node.outputs[0].name, attribute.value)
        if name in ("value_float", "value_floats"):
            return self._number_or_held(node, torch.tensor(attribute.value, dtype=torch.float32))
        if name in ("value_int", "value_ints"):
            return self._number_or_held(node, torch.tensor(attribute.value, dtype=torch.int64))
        raise NotTranslated(f"{self._place(node)}: the attribute {name} has no definition")


def _is_parameter(constant: Any) -> bool:
    return isinstance(getattr(constant, "raw", None), nn.Parameter)


def parameter_of(tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=False) if tensor.is_floating_point() else tensor


def single(number: float, shape: tuple[int, ...], *, to: int) -> Tensor:
    """Return a tensor of one element."""
    return torch.tensor(number, dtype=dtype_of(to)).reshape(shape)


def item_of(made: tuple[Tensor, ...], i: int) -> Tensor:
    return made[i]


def _computes_in_float64(graph: Any) -> bool:
    """Return True if a value may be in float64."""
    values: Iterable[Any] = itertools.chain(graph.inputs, graph.outputs, graph.initializers.values())
    return any(value.dtype is not None and value.dtype.name == "DOUBLE" for value in values)


def identifier(name: str) -> str:
    """Return a name that Python code may have."""
    found = re.sub(r"\W", "_", name)
    return found if found[:1].isidentifier() else f"_{found}"


def _is_path(name: str) -> bool:
    """Return True if the name can be that of a parameter in modules, as ``layers.0.weight`` can."""
    first, *_ = parts = name.split(".")
    plain = all(part.isidentifier() or part.isdigit() for part in parts) and not first.startswith("_")
    return plain and not any(hasattr(fx.GraphModule, part) for part in parts) and not {"graph", "code"} & {*parts}


def free_name(name: str, taken: set[str]) -> str:
    return next(x for x in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1))) if x not in taken)


def _numbers(constant: Any) -> Tensor:
    """Return the numbers of a constant; the tensor that it was made from, if there is one."""
    dtype_of(int(constant.dtype))
    raw = getattr(constant, "raw", None)
    if isinstance(raw, Tensor):
        return raw.detach()
    try:
        array = constant.numpy()
        if constant.dtype.name == "BFLOAT16":
            return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
        return torch.from_numpy(array.reshape(-1).copy()).reshape(tuple(array.shape))
    except Exception as error:
        raise NotTranslated(f"the constant {constant.name} can't be read ({brief(error)})") from error
