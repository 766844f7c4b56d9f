"""`foldproof report`, `--html` and `doctor` as a user meets them."""

from __future__ import annotations

import builtins
import importlib.metadata
import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from foldproof.report import FORMS
from foldproof.version import find_requirements

from .test_commands import Foldproof, foldproof, written  # noqa: F401  # the fixture


def test_a_page_beside_the_result(foldproof: Foldproof) -> None:  # noqa: F811
    ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2", "--json", "out.json", "--html", "now.html")
    assert ran.status == 0 and "wrote out.json\nwrote now.html" in ran.out
    ran = foldproof("report", "out.json")
    assert ran.status == 0 and ran.out == "wrote out.html\n"
    assert Path("out.html").read_text() == Path("now.html").read_text()
    assert "<!DOCTYPE html>" in Path("out.html").read_text()[:20]


@pytest.mark.parametrize("suffix", FORMS)
def test_the_suffix_says_what_is_made(foldproof: Foldproof, suffix: str) -> None:  # noqa: F811
    assert foldproof("prove", "models.py:relu", "models.py:sigmoid", "--json", "out.json").status == 1
    assert foldproof("report", "out.json", "-o", f"out{suffix}").status == 0
    assert "REFUTED" in Path(f"out{suffix}").read_text()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["report", "missing.json"], "missing.json does not exist"),
        (["report", "."], ". is not a file"),
        (["explore", "missing.json"], "missing.json does not exist"),
        (["report", "models.py"], "models.py is not a JSON file"),
        (["report", "other.json"], "other.json is not a result of a foldproof command"),
        (["report", "old.json"], "old.json has schema 0, but this foldproof reads schemas 1 and 2: write it again"),
        (["report", "other.json", "-o", "x.pdf"], "x.pdf must end in .html, .xml, .sarif"),
        (["explore", "other.json"], "other.json is not a result of a foldproof command"),
        (["explain", "models.py:relu", "--json", "a", "--html", "./a"], "a is given for two outputs"),
        (["explain", "models.py:relu", "--html", "missing/a.html"], "missing is not a folder"),
    ],
)
def test_mistakes(foldproof: Foldproof, args: list[str], told: str) -> None:  # noqa: F811
    Path("other.json").write_text('{"a": 1}')
    Path("old.json").write_text('{"schema": 0, "command": "fuse"}')
    ran = foldproof(*args)
    assert ran.status == 2 and told in ran.err and len(ran.err.splitlines()) == 1
    assert written() == {"other.json", "old.json"}


def test_what_is_missing_is_told_before_the_work(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    real = builtins.__import__

    def no_jinja(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jinja2":
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_jinja)
    ran = foldproof("explain", "models.py:no_such", "--html", "out.html")
    assert ran.status == 2 and "pip install 'jinja2>=" in ran.err and "extra report" in ran.err


def test_doctor(foldproof: Foldproof) -> None:  # noqa: F811
    ran = foldproof("doctor", "--json", "doctor.json")
    assert ran.status == 0 and "tested with" in ran.out and "batch_norm" in ran.out
    found = json.loads(Path("doctor.json").read_text())
    assert found["operators"] > 300 and found["audit"]["fx"] is True
    assert set(found["extras"]) == {"cli", "report", "explore", "executorch", "onnx", "openvino", "ray", "torchao"}


def test_doctor_of_a_foldproof_that_is_not_installed(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    ran = foldproof("doctor")
    assert ran.status == 2 and "pip install -e ." in ran.err and len(ran.err.splitlines()) == 1


def test_doctor_says_what_is_missing_and_how_to_get_it(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("openvino", "jinja2"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    ran = foldproof("doctor")
    assert ran.status == 0 and "to install what is missing: pip install jinja2 openvino" in ran.out
    assert "openvino missing" in ran.out and "jinja2 missing" in ran.out


def test_doctor_knows_what_is_not_here(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    real = importlib.util.find_spec
    absent = ("onnxscript", "openvino", "torchao")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name, *rest))
    ran = foldproof("doctor")
    told = " ".join(ran.out.split())
    assert ran.status == 0 and "torchao (not here), executorch" in told, told
    assert "torch.ao, onnx (not here), openvino (not here)" in told, told


def test_doctor_tells_what_an_untested_version_costs(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from foldproof.cli import doctor

    with monkeypatch.context() as patch:
        patch.setattr(doctor, "TESTED", {"torch": torch.__version__.split("+")[0]})
        assert "untested" not in foldproof("doctor").out
    monkeypatch.setattr("torch.__version__", "2.14.1+cu130")
    told = foldproof("doctor").out
    assert "torch 2.14.1+cu130 is untested: tests run with 2.13.0. New operators have no rule" in told
    assert json.loads(foldproof("doctor", "--json", "-").out)["untested"]


def test_explore_asks_for_its_own_extra(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    foldproof("explain", "models.py:residual", "--json", "why.json")
    real = importlib.util.find_spec
    absent = ("jsonschema", "model_explorer")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name, *rest))
    ran = foldproof("explore", "why.json")
    assert ran.status == 2 and "'ai-edge-model-explorer>=" in ran.err and "extra explore" in ran.err


def test_explore_on_a_port_without_a_browser(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    explorer = pytest.importorskip("model_explorer")
    asked = {}
    monkeypatch.setattr(explorer, "visualize_from_config", lambda config, **how: asked.update(how))
    foldproof("prove", "models.py:relu", "models.py:relu", "--json", "proof.json")
    assert foldproof("explore", "proof.json", "--no-open", "--port", "8123").status == 0
    assert asked == {"port": 8123, "no_open_in_browser": True}
    with socket.create_server(("localhost", 8123)):
        assert foldproof("explore", "proof.json", "--port", "8123").status == 0
    assert asked == {"port": 8124, "no_open_in_browser": False}


def test_requirements_of_other_versions_of_python_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["torch>=2.13", "rich>=13.8; extra == 'cli'", "tomli>=2; (python_version < '3.11') and extra == 'cli'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: listed)
    monkeypatch.setattr("sys.version_info", (3, 11, 7))
    assert find_requirements("cli") == ["rich>=13.8"]
    monkeypatch.setattr("sys.version_info", (3, 10, 1))
    assert find_requirements("cli") == ["rich>=13.8", "tomli>=2"]
