"""Files for Model Explorer, in its own types."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from foldproof.errors import FoldproofError, MissingExtra
from foldproof.report import explorer

model_explorer = pytest.importorskip("model_explorer")
Written = Callable[[str], dict[str, Any]]


def shown(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graphs and layers of node data, as the package itself turns them into JSON for its page."""
    made = explorer.config(document)
    [text] = json.loads(made.get_transferrable_data()["graphs_list"])
    graphs = {graph["id"]: graph for graph in json.loads(text)["graphs"]}
    layers = {}
    for i, source in enumerate(made.node_data_sources):
        name = source.removeprefix("node_data://").rsplit("/", 1)[0]
        layers[name] = json.loads(made.get_node_data(i).to_json_string())
    return graphs, layers


def test_a_fusion_with_verdicts_bounds_and_errors(written: Written) -> None:
    graphs, layers = shown(written("fuse"))
    before = {node["id"]: node for node in graphs["before"]["nodes"]}
    assert {"conv2d", "flatten", "batch_norm"} <= set(before)
    assert before["flatten"]["incomingEdges"][0]["sourceNodeId"] == "conv2d"
    assert layers["verdict"]["before"]["results"]["batch_norm"]["value"] == "PROVED"
    assert layers["log10 of the chance of being wrong"]["after"]["results"]["conv2d"]["value"] < -12
    assert layers["distance to the float64 result"]["before"]["results"]["batch_norm"]["value"] < 1e-6


def test_the_verdict_is_what_is_shown_first(written: Written) -> None:
    """Model Explorer opens with the last layer."""
    assert list(shown(written("fuse"))[1])[-1] == "verdict"


def test_a_wrong_pass_marks_what_differs(written: Written) -> None:
    graphs, layers = shown(written("audit"))
    assert set(graphs) == {"0 fuse, before", "0 fuse, after"}
    assert layers["verdict"]["0 fuse, before"]["results"]["bn"]["value"] == "REFUTED"


def test_a_comparison_shows_distances_and_the_floor(written: Written) -> None:
    graphs, layers = shown(written("compare_refuted"))
    results = layers["distance of the candidate to the float64 result"]["reference"]["results"]
    assert results["batch_norm"]["value"] > 1000 * layers["noise floor"]["reference"]["results"]["batch_norm"]["value"]
    assert set(results) <= {node["id"] for node in graphs["reference"]["nodes"]}


def test_without_graphs_or_without_the_package(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoldproofError, match="nothing to explore"):
        explorer.config(written("explain"))
    monkeypatch.setitem(__import__("sys").modules, "model_explorer", None)
    with pytest.raises(MissingExtra, match="extra explore"):
        explorer.config(written("fuse"))
