"""The published schema against what the commands write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

import foldproof
from foldproof.errors import FoldproofError
from foldproof.report import FORMS, load, validated
from foldproof.report.document import schema

from .conftest import COMMANDS

Written = Callable[[str], dict[str, Any]]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_written_fits(written: Written, name: str) -> None:
    document = written(name)
    jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    assert document["command"] == COMMANDS[name][0] and document["subject"].startswith("models.py:")


def test_what_audit_saves_fits_and_has_what_changed(written: Written) -> None:
    document = written("audit_saved")
    jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    assert (document["command"], document["pass"]) == ("audit", "fuse")
    assert [step["verdict"]["kind"] for step in document["steps"]] == ["REFUTED"]
    assert all("REFUTED" in made(document) for made in FORMS.values())


def test_an_audit_as_python_has_it_fits() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    found = foldproof.audit(model, (torch.randn(3, 2),), compiler="fx")
    assert validated(found.to_dict())["command"] == "audit"


def test_graphs_are_whole(written: Written) -> None:
    """Each node that another one reads is there, unless nodes are left out."""
    fuse, audit = written("fuse"), written("audit")
    found = [fuse["graphs"], *(r["graphs"] for r in fuse["rewrites"]), *(s["graphs"] for s in audit["steps"])]
    for graph in (side for pair in found for side in (pair["before"], pair["after"])):
        names = {node["name"] for node in graph["nodes"]}
        assert graph["omitted"] == 0 and names
        assert all(set(node["inputs"]) <= names for node in graph["nodes"])


def test_a_comparison_tells_of_layers_outputs_and_inputs(written: Written) -> None:
    found = written("compare_refuted")
    layers = {layer["node"]: layer for layer in found["layers"]}
    assert layers["conv2d"]["candidate"] < 10 * layers["conv2d"]["floor"]
    assert layers["batch_norm"]["candidate"] > 1000 * layers["batch_norm"]["floor"]
    [output] = found["outputs"]
    assert output["reference"] < 10 * output["floor"] < output["candidate"]
    assert len(found["distances"]) == found["inputs"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(schema=3), "this foldproof reads schemas 1 and 2"),
        (lambda d: d.pop("command"), "write one with foldproof fuse"),
        (lambda d: d["verdict"].update(kind="FINE"), "at verdict/kind"),
        (lambda d: d["rewrites"][0]["graphs"]["before"].pop("nodes"), "at rewrites/0/graphs/before"),
        (lambda d: d.pop("rewrites"), "'rewrites' is a required property"),
    ],
)
def test_what_does_not_fit_is_named(written: Written, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    document = written("fuse")
    change(document)
    with pytest.raises(FoldproofError, match=told):
        validated(document)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FoldproofError, match="can't be read"):
        load(tmp_path / "missing.json")
    no_result = "is not a result"
    for text, told in (("{", "is not a JSON file"), ("[1]", no_result), (json.dumps({"a": 1}), no_result)):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(FoldproofError, match=told):
            load(tmp_path / "x.json")


def test_results_of_version_1_are_read() -> None:
    """This one was saved by foldproof 0.1."""
    path = Path(__file__).parent / "version_1.json"
    assert json.loads(path.read_text())["schema"] == 1
    found = load(path)
    refuted = [step for step in found["steps"] if step["verdict"]["kind"] == "REFUTED"]
    for verdict in (found["verdict"], found["end_to_end"]["verdict"], *(step["verdict"] for step in refuted)):
        assert verdict["schema"] == 2 and verdict["counterexample"] and verdict["claim"]["scope"] == "point"
        assert "witness" not in verdict
