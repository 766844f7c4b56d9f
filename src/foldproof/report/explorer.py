"""A result in Model Explorer (`ai-edge-model-explorer`): graphs with layers of verdicts, bounds and errors."""

from __future__ import annotations

import importlib.util
import math
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from foldproof.errors import FoldproofError, MissingExtra
from foldproof.report.document import Document, validated

VERDICT, BOUND = "verdict", "log10 of the chance of being wrong"
COLOURS = {
    "PROVED": "#dff3ec",
    "PROVED_WITHIN": "#dff3ec",
    "ROUNDING": "#e0f0fa",
    "REFUTED": "#fdeadf",
    "UNDECIDED": "#fbf3d0",
}

Overlay = tuple[str, str, str, float | str]
"""A value of a layer: the names of the layer, the graph and the node, and the value."""


def require() -> None:
    """Raise MissingExtra if a package for `explore` is missing."""
    for module, package in (("model_explorer", "ai-edge-model-explorer"), ("jsonschema", "jsonschema")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(package, "explore")


def explore(document: Document, port: int = 8080, browser: bool = True) -> None:
    """Start Model Explorer's server on this machine and open a browser, if wanted; returns after Ctrl-C.

    If ``port`` is taken, the next free one is.

    Raises:
        FoldproofError: ``document`` does not conform to the schema, or has no graph.
        MissingExtra: ai-edge-model-explorer is not installed.
    """
    configured = config(document)
    import model_explorer
    from model_explorer.extension_manager import ExtensionManager

    # Adapters read files of models, of which there are none here; loading them takes seconds and prints twenty lines.
    with mock.patch.object(ExtensionManager, "BUILTIN_ADAPTER_MODULES", [], create=True):
        model_explorer.visualize_from_config(configured, port=_free_port(port), no_open_in_browser=not browser)


def _free_port(port: int) -> int:
    """The first port from ``port`` on that nobody listens on: Model Explorer ends the process where one is taken."""
    for one in range(port, 65536):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", one)):
                return one
    raise FoldproofError(f"no port from {port} on is free")


def config(document: Document) -> Any:
    """A ``ModelExplorerConfig`` with the graphs of a result, and a layer of node data for each kind of value.

    Raises:
        FoldproofError: ``document`` does not conform to the schema, or has no graph.
        MissingExtra: ai-edge-model-explorer is not installed.
    """
    require()
    import model_explorer
    from model_explorer import node_data_builder as data

    document = validated(document)
    graphs = dict(_graphs(document))
    if not graphs:
        raise FoldproofError("this result has no graphs, so there is nothing to explore")
    made = model_explorer.config()
    made.graphs_list.append({"graphs": [_graph(name, graph) for name, graph in graphs.items()]})
    made.model_sources.append({"url": f"graphs://foldproof {document['command']}/0"})
    names = {graph: {node["name"] for node in found["nodes"]} for graph, found in graphs.items()}
    layers: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for layer, graph, node, value in _overlays(document):
        if node in names.get(graph, ()):
            colour = COLOURS.get(value) if isinstance(value, str) else None
            layers[layer][graph][node] = data.NodeDataResult(value=value, bgColor=colour)
    # Model Explorer shows the last layer first; make it the verdict.
    for layer, by_graph in sorted(layers.items(), key=lambda item: item[0] == VERDICT):
        words = layer == VERDICT
        shown = {
            "gradient": [] if words else [data.GradientItem(0, "#fbeade"), data.GradientItem(1, "#d55e00")],
            "hideInAggregatedStatsTable": words,
            "hideAggregatedStats": ["sum"],  # sums of errors or logarithms mean nothing
            "hideInChildrenStatsTable": layer in (VERDICT, BOUND),
            "showExpandedSummaryOnGroupNode": words,
        }
        found = {graph: data.GraphNodeData(results, **shown) for graph, results in by_graph.items()}
        made.add_node_data(layer, data.ModelNodeData(found))
    return made


def _graph(name: str, graph: Mapping[str, Any]) -> Any:
    from model_explorer import graph_builder as build

    nodes = []
    for node in graph["nodes"]:
        edges = [build.IncomingEdge(x, targetNodeInputId=str(i)) for i, x in enumerate(node["inputs"])]
        shown = {key: node[key] for key in ("operator", "attributes", "source") if node.get(key)}
        if "axes" in node:
            shown["axes of the affine"] = ", ".join(map(str, node["axes"]))
        result = f"{node.get('dtype', '')}{node.get('shape', '')}"
        nodes.append(
            build.GraphNode(
                id=node["name"],
                label=node["name"],
                namespace=node.get("module", "").replace(".", "/"),
                attrs=[build.KeyValue(key, str(value)) for key, value in shown.items()],
                incomingEdges=edges,
                outputsMetadata=[build.MetadataItem("0", [build.KeyValue("tensor_shape", result)])],
            )
        )
    return build.Graph(id=name, nodes=nodes)


def _graphs(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if document.get("graph"):
        yield "reference", document["graph"]
    for side, graph in (document.get("graphs") or {}).items():
        if graph:
            yield side, graph
    for i, step in enumerate(document.get("steps", ()) if document["command"] == "audit" else ()):
        for side, graph in (step.get("graphs") or {}).items():
            yield _step(i, step, side), graph


def _step(number: int, step: Mapping[str, Any], side: str) -> str:
    return f"{number} {step['name']}, {side}"


def _overlays(document: Document) -> Iterator[Overlay]:
    if document["command"] == "fuse":
        for row in document["rewrites"]:
            yield from _verdict("before", row["nodes"], row["verdict"])
            yield from _verdict("after", [row["result"]], row["verdict"])
            if row["accuracy"]:
                for side, node in (("before", row["reported"]), ("after", row["result"])):
                    yield from _number("distance to the float64 result", side, node, row["accuracy"][side])
    if document["command"] == "prove" and document["difference"]:
        yield from _verdict("before", [document["difference"]["node"], *document["difference"]["region"]], document)
        if document["difference"]["after"]:
            yield from _verdict("after", [document["difference"]["after"]["node"]], document)
    for i, step in enumerate(document.get("steps", ()) if document["command"] == "audit" else ()):
        for side, graph in (step.get("graphs") or {}).items():
            differing = [node["name"] for node in graph["nodes"] if node.get("differs")]
            yield from _verdict(_step(i, step, side), differing, step["verdict"])
    if document["command"] == "compare":
        for layer in document.get("layers", ()):
            for what in ("reference", "candidate", "floor"):
                named = "noise floor" if what == "floor" else f"distance of the {what} to the float64 result"
                yield from _number(named, "reference", layer["node"], layer[what])
        for source in document["sources"]:
            yield from _verdict("reference", [source["node"]], document["verdict"])
            for what, named in (("sigma", "error there, in sigmas"), ("amplification", "amplification")):
                yield from _number(named, "reference", source["node"], source[what])


def _verdict(graph: str, nodes: list[str], verdict: Mapping[str, Any]) -> Iterator[Overlay]:
    for node in nodes:
        yield VERDICT, graph, node, verdict["kind"]
        if verdict["proof"]:
            yield BOUND, graph, node, verdict["proof"]["log2_error"] * math.log10(2)


def _number(layer: str, graph: str, node: str, value: Any) -> Iterator[Overlay]:
    if isinstance(value, (int, float)):
        yield layer, graph, node, value
