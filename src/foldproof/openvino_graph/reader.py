"""OpenVINO's files as graphs of PyTorch: a node for each operation, which calls its definition."""

from __future__ import annotations

import hashlib
import re
import struct
import xml.etree.ElementTree as xml
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.graph.module import get_attribute, set_attribute
from foldproof.onnx_graph.reader import free_name, identifier, item_of, parameter_of, single
from foldproof.onnx_graph.registry import DEFINITIONS, NotTranslated
from foldproof.onnx_graph.registry import DTYPES as NUMBERED
from foldproof.openvino_graph.definitions import DOMAIN, dtype_named

Held = dict[tuple[Any, ...], Tensor]
"""Constants of models, by their bytes: readings of one model at several times share their tensors."""
Port = tuple[str, str]
"""A layer's number and that of its output."""


def read_model(path: Path, where: str = "the OpenVINO model", held: Held | None = None) -> fx.GraphModule:
    """Return the model of an ``.xml`` file and the ``.bin`` file beside it as a graph module, in the order of the file.

    ``held`` is a record of constants, if their tensors are to be shared with other readings.

    Raises:
        NotTranslated: an operation has no definition.
    """
    weights = path.with_suffix(".bin").read_bytes()
    return _Reader(weights, where, {} if held is None else held).read(xml.parse(path).getroot())


def read_compiled(exported: bytes, where: str = "the compiled model", held: Held | None = None) -> fx.GraphModule:
    """Return the graph that a plugin works on, from what it exports (with an encryption that changes nothing).

    Six numbers stand in front: where its own data, the weights and the model begin, each with its length.

    Raises:
        NotTranslated: an operation has no definition, or the format is another one.
    """
    start = exported.find(b"<?xml") - _HEADER.size
    if start >= 0:
        _, _, weights, length, model, size = _HEADER.unpack_from(exported, start)
        text = exported[start + model : start + model + size]
        if text.startswith(b"<?xml"):
            reader = _Reader(exported[start + weights : start + weights + length], where, {} if held is None else held)
            return reader.read(xml.fromstring(text.rstrip(b"\0").decode()))
    raise NotTranslated(f"{where} is in a format that is not known")


_HEADER = struct.Struct("<6Q")


class _Reader:
    def __init__(self, weights: bytes, where: str, held: Held) -> None:
        self._weights, self._where, self._held = weights, where, held
        self._graph, self._root = fx.Graph(), nn.Module()
        self._names = set[str]()

    def read(self, net: xml.Element) -> fx.GraphModule:
        self._graph.output(tuple(self._run(net, None)))
        return fx.GraphModule(self._root, self._graph)

    def _run(self, net: xml.Element, given: Mapping[str, Any] | None) -> list[Any]:
        """Add the layers of a net, and return its results; ``given`` are the values of its parameters, if known."""
        sources = {
            (edge.get("to-layer"), edge.get("to-port")): (edge.get("from-layer", ""), edge.get("from-port", ""))
            for edge in net.findall("edges/edge")
        }
        layers = {layer.get("id", ""): layer for layer in net.findall("layers/layer")}
        values: dict[Port, Any] = {}
        results: list[Any] = []
        for layer in _in_order(layers, sources):
            number, kind = layer.get("id", ""), layer.get("type", "")
            operands = [values[sources[number, port.get("id")]] for port in layer.findall("input/port")]
            outputs = [(number, port.get("id", "")) for port in layer.findall("output/port")]
            if kind == "Result":
                results.append((number, operands[0]))
            elif kind == "Parameter" and given is not None:
                values[outputs[0]] = given[number]
            elif kind == "Parameter":
                values[outputs[0]] = self._graph.placeholder(identifier(layer.get("name", "")))
            elif kind == "Const":
                values[outputs[0]] = self._constant(layer)
            else:
                made = self._body(layer, operands) if layer.find("body") is not None else self._add(layer, operands)
                values |= dict(zip(outputs, made))
        # Layers are in the order of files, and results in that of their numbers.
        return [value for _, value in sorted(results, key=lambda one: int(one[0]))] if given is None else results

    def _body(self, layer: xml.Element, operands: list[Any]) -> list[Any]:
        """Add the layers inside of a layer that only groups them."""
        if layer.get("type") != "Subgraph":
            raise NotTranslated(f"{self._place(layer)}: the operation has no definition")
        ports = [port.get("id", "") for port in layer.findall("input/port")]
        inside = {
            one.get("internal_layer_id", ""): operands[ports.index(one.get("external_port_id", ""))]
            for one in layer.findall("port_map/input")
        }
        body = layer.find("body")
        assert body is not None
        made = dict(self._run(body, inside))
        places = {one.get("external_port_id"): one.get("internal_layer_id") for one in layer.findall("port_map/output")}
        return [made[places[port.get("id")]] for port in layer.findall("output/port")]

    def _place(self, layer: xml.Element) -> str:
        return f"{self._where}, {layer.get('name')} ({layer.get('type')})"

    def _add(self, layer: xml.Element, operands: list[Any]) -> list[Any]:
        definition = DEFINITIONS.get((DOMAIN, layer.get("type", "")))
        if definition is None:
            raise NotTranslated(f"{self._place(layer)}: the operation has no definition")
        data = layer.find("data")
        attributes = {} if data is None else {n.replace("-", "_"): _parse(v) for n, v in data.attrib.items()}
        attributes = {name: value for name, value in attributes.items() if name not in _OF_TYPES}
        attributes |= {name: _several(attributes[name]) for name in definition.sequences & attributes.keys()}
        unknown = sorted(attributes.keys() - definition.attributes)
        if unknown:
            raise NotTranslated(f"{self._place(layer)}: the attribute {unknown[0]} has no definition")
        missing = sorted(definition.required - attributes.keys())
        if missing:
            raise NotTranslated(f"{self._place(layer)}: the attribute {missing[0]} is missing")
        least, most = definition.operands
        operands = [None if x is None else self._operand(x, i in definition.numbers) for i, x in enumerate(operands)]
        while operands and operands[-1] is None:
            operands.pop()
        if len(operands) < least or (most is not None and len(operands) > most):
            raise NotTranslated(f"{self._place(layer)}: an operation with {len(operands)} inputs has no definition")
        name = identifier(layer.get("name", "").split("/")[0] or layer.get("type", ""))
        made = self._graph.create_node("call_function", definition.function, tuple(operands), attributes, name)
        count = len(layer.findall("output/port"))
        return [self._graph.call_function(item_of, (made, i)) for i in range(count)] if definition.several else [made]

    def _operand(self, node: Any, numbers: bool) -> Any:
        """Return the node of an input; of numbers that are constants, the numbers."""
        if numbers and node.target is single:
            return [node.args[0]]
        if numbers and node.op == "get_attr":
            return get_attribute(self._root, str(node.target)).flatten().tolist()
        return node

    def _constant(self, layer: xml.Element) -> fx.Node | None:
        """Return the node of a constant; None if it stands for an input that is left out."""
        data = layer.find("data")
        assert data is not None
        if data.get("element_type") == "dynamic":
            return None
        dtype = dtype_named(data.get("element_type", ""))
        shape = tuple(int(n) for n in data.get("shape", "").split(",") if n.strip())
        start, size = int(data.get("offset", 0)), int(data.get("size", 0))
        content = self._weights[start : start + size]
        key = (hashlib.sha256(content).digest(), dtype, shape)
        if key not in self._held:
            flat = torch.frombuffer(bytearray(content), dtype=dtype) if size else torch.empty(0, dtype=dtype)
            self._held[key] = flat.reshape(shape)
        tensor = self._held[key]
        if tensor.numel() == 1:
            number = next(number for number, known in NUMBERED.items() if known is dtype)
            return self._graph.call_function(single, (tensor.item(), shape), {"to": number})
        path = free_name(f"constant_{identifier(layer.get('name', ''))}", self._names)
        self._names.add(path)
        set_attribute(self._root, path, parameter_of(tensor))
        return self._graph.get_attr(path)


_OF_TYPES = {"type_relax", "input_data_types", "output_data_types"}
"""Attributes of layers whose types of elements were changed: no numbers depend on them."""


def _in_order(layers: Mapping[str, xml.Element], sources: Mapping[Any, Port]) -> list[xml.Element]:
    """Return the layers, each behind those that it reads."""
    done: dict[str, xml.Element] = {}
    needs: dict[str, list[str]] = {number: [] for number in layers}
    for (number, _), (source, _) in sources.items():
        needs[number].append(source)
    pending = list(layers)[::-1]
    while pending:
        number = pending[-1]
        missing = [source for source in needs[number] if source not in done]
        if missing and number not in done:
            pending += missing
        else:
            done.setdefault(pending.pop(), layers[number])
    return list(done.values())


def _parse(text: str) -> Any:
    """Return the value of an attribute."""
    if text in ("true", "false"):
        return text == "true"
    if "," in text:
        return tuple(map(_parse, text.split(",")))
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    try:
        return _number(text)
    except ValueError:
        return text.strip()


def _several(value: Any) -> tuple[Any, ...]:
    """Return the numbers of an attribute, of which there may be one, or none."""
    if isinstance(value, tuple):
        return value
    return () if value == "" else (value,)


_WHOLE = re.compile(r"[+-]?[0-9]+")


def _number(text: str) -> float:
    """Return a number that float32 holds as the shortest decimal that float32 rounds to it."""
    return float(str(torch.tensor(float(text), dtype=torch.float32).numpy()))
