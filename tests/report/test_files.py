"""JUnit XML and SARIF, read back by others' readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import junitparser
import pytest
import sarif_pydantic

from foldproof.report import junit, sarif

from .conftest import COMMANDS

Written = Callable[[str], dict[str, Any]]


def suite(document: dict[str, Any]) -> Any:
    [one] = junitparser.JUnitXml.fromstring(junit(document).encode())
    return one


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "explain"])
def test_every_result_is_a_suite(written: Written, name: str) -> None:
    document = written(name)
    found = suite(document)
    kind = document.get("kind") or document["verdict"]["kind"]
    assert found.tests == len(list(found)) > 0
    assert (found.failures > 0, found.errors > 0) == (kind == "REFUTED", kind == "UNDECIDED")


def test_a_wrong_pass_is_a_failed_case(written: Written) -> None:
    wrong, whole = suite(written("audit"))
    assert (wrong.classname, wrong.name) == ("audit.fx", "fuse")
    [failure] = wrong.result
    assert isinstance(failure, junitparser.Failure) and failure.type == "REFUTED"
    assert "elements differ; counterexample: output 0 at" in failure.message
    assert whole.name == "models.py:twice"


def test_characters_that_xml_can_not_hold(written: Written) -> None:
    found = suite(written("prove_refuted") | {"reason": "a\x00b\ud800<&>\u2028"})
    assert found.failures == 1 and "a\ufffdb\ufffd<&>" in next(iter(found)).result[0].message


def test_sarif_has_what_is_wrong_with_its_line(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    document = written("compare_refuted")
    source = document["verdict"]["difference"]["source"]
    file, line = source.rsplit(":", 1) if ":" in source else ("/model/models.py", "7")
    document["verdict"]["difference"]["source"] = f"{file}:{line}"
    monkeypatch.chdir("/")
    [run] = sarif_pydantic.Sarif.model_validate_json(sarif(document)).runs
    [result] = run.results
    assert run.tool.driver.name == "foldproof" and result.rule_id == "REFUTED"
    place = result.locations[0].physical_location
    assert place.region.start_line == int(line)
    assert place.artifact_location.uri == file.lstrip("/")


@pytest.mark.parametrize(("name", "count"), [("prove", 0), ("audit_proved", 0), ("audit", 2), ("prove_undecided", 1)])
def test_sarif_is_silent_of_what_is_fine(written: Written, name: str, count: int) -> None:
    text = sarif(written(name))
    sarif_pydantic.Sarif.model_validate_json(text)
    assert len(json.loads(text)["runs"][0]["results"]) == count


def test_files_elsewhere_keep_their_place(written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    document = written("compare_refuted")
    document["verdict"]["difference"]["source"] = "/some where/model.py:3"
    [result] = json.loads(sarif(document))["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "file:///some%20where/model.py"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_result_has_a_place_and_a_fingerprint(written: Written, name: str) -> None:
    """GitHub refuses a whole log for one result without a place."""
    document = written(name) | {"subject": "models.py:residual"}
    for verdict in (document, document.get("verdict") or {}, (document.get("end_to_end") or {}).get("verdict") or {}):
        if "difference" in verdict:
            verdict["difference"] = None
    [run] = json.loads(sarif(document))["runs"]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] and place["region"]["startLine"] >= 1
        assert all(len(value) == 64 for value in result["partialFingerprints"].values())
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["id"] and rule["fullDescription"]["text"] and rule["help"]["text"]


def test_a_result_without_a_line_is_at_its_program(written: Written) -> None:
    document = written("compare_refuted") | {"subject": "models.py:residual"}
    document["verdict"]["difference"] = None
    [result] = json.loads(sarif(document))["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("models.py", 1)
