"""The GitHub Action and the pre-commit hook: their files are sound, and what they run does what the docs say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
[HOOK] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
PAGE = (ROOT / "docs" / "howto" / "ci.md").read_text("utf-8")
RECIPES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n([\s\S]*?)```", PAGE)]
MODEL = re.findall(r'```python title="model.py"\n([\s\S]*?)```', PAGE)[0]
WRONG = """
import torch
from torch import nn

class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.bn.running_var.fill_(2.0)

    def forward(self, x):
        return self.bn(self.conv(x)) + self.conv(x)

def before():
    return Twice().eval(), (torch.ones(1, 3, 4, 4),)

def after():
    model, inputs = before()
    model.bn.running_var.fill_(3.0)
    return model, inputs
"""


def run(folder: Path, arguments: str) -> tuple[int, dict[str, str], str]:
    """Run the action's script; return its status, its outputs and its summary."""
    files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    inputs = {"arguments": arguments, "folder": ACTION["inputs"]["folder"]["default"]}
    step = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "run")
    filled = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) }}", lambda found: inputs[found[1]], value)
        for name, value in step["env"].items()
    }
    command = ["bash", "-c", step["run"].replace("python ", f"{shlex.quote(sys.executable)} ", 1)]
    env = os.environ | filled | {"GITHUB_ACTION_PATH": str(ROOT)} | {name: str(path) for name, path in files.items()}
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return ran.returncode, outputs, files["GITHUB_STEP_SUMMARY"].read_text()


def test_the_recipe(tmp_path: Path) -> None:
    [step] = [step for step in RECIPES[0]["steps"] if step.get("id") == "foldproof"]
    assert step["with"].keys() <= ACTION["inputs"].keys()
    (tmp_path / "model.py").write_text(MODEL)
    status, outputs, summary = run(tmp_path, step["with"]["arguments"])
    assert status == 0 and outputs.pop("status") == "0"
    assert outputs.keys() == ACTION["outputs"].keys() - {"status"}
    assert all((tmp_path / path).is_file() for path in outputs.values())
    assert "every graph pass is proved" in summary
    for name in re.findall(r"steps\.foldproof\.outputs\.(\w+)", PAGE):
        assert name in ACTION["outputs"]


def test_a_refuted_program_fails_the_job_and_has_its_reports(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(WRONG)
    status, outputs, summary = run(tmp_path, "prove model.py:before model.py:after")
    assert status == 1 and outputs["status"] == "1" and "REFUTED: " in summary
    assert json.loads((tmp_path / outputs["sarif"]).read_text())["runs"][0]["results"]


def test_wrong_usage_has_no_reports(tmp_path: Path) -> None:
    status, outputs, summary = run(tmp_path, "prove model.py:before missing.pt2")
    assert (status, outputs) == (2, {"status": "2"}) and "does not exist" in summary


def test_outputs_are_those_of_the_script() -> None:
    named: dict[str, Any] = ACTION["outputs"]
    assert all(one["value"] == f"${{{{ steps.run.outputs.{name} }}}}" for name, one in named.items())


def test_the_hook(tmp_path: Path) -> None:
    [asked] = RECIPES[1]["repos"][0]["hooks"]
    assert asked["id"] == HOOK["id"] and HOOK["entry"] == "foldproof" and not HOOK["pass_filenames"]
    (tmp_path / "model.py").write_text(MODEL)
    ran = subprocess.run(
        [sys.executable, "-m", HOOK["entry"], *asked["args"]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0 and "every graph pass is proved" in ran.stdout and ran.stdout.count("\n") == 1


def test_the_settings_of_the_page_are_options(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(re.findall(r"```toml\n([\s\S]*?)```", PAGE)[0])
    ran = subprocess.run(
        [sys.executable, "-m", "foldproof", "explain", "missing.py:make"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == "foldproof: missing.py:make: missing.py does not exist\n"
