"""Saved audits: a short reproduction, both graphs and a report; the reproduction can be run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import foldproof
from foldproof import FoldproofError
from foldproof.auditing import api, replay

from .models import WRONG


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = WRONG["fx: conv called twice"]
    model, inputs = case.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "COMPARED_INPUTS", 3)
        return foldproof.audit(model, inputs, compiler=case.compiler).save(tmp_path_factory.mktemp("saved"))


def test_the_program_is_short_and_stands_alone(saved: Path) -> None:
    text = (saved / "repro.py").read_text()
    assert len(text.splitlines()) <= 15
    assert "foldproof" not in text
    done = subprocess.run([sys.executable, "repro.py"], cwd=saved, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Tensor-likes are not close" in done.stderr


def test_it_is_small(saved: Path) -> None:
    """The smallest that can show it: two channels, one pixel of output, one BatchNorm of the two."""
    text = (saved / "repro.py").read_text()
    assert text.count("nn.BatchNorm2d(2)") == 1
    assert "torch.ones(1, 2, 2, 2)" in text


def test_both_graphs_run_and_differ(saved: Path) -> None:
    done = subprocess.run([sys.executable, "graphs.py"], cwd=saved, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("after", 1)
    assert before.removeprefix("before") != after
    assert "# <<<" in (saved / "graphs.py").read_text()


def test_the_report_and_the_verdict(saved: Path) -> None:
    report = (saved / "report.md").read_text()
    for part in ("### 🐛 Describe the bug", "```python", "not close", "### Versions", "torch 2."):
        assert part in report
    assert "In the program above it goes from " in report
    assert "(in  →" not in report
    told = json.loads((saved / "verdict.json").read_text())
    assert told["pass"] == "fuse"
    assert told["reproduced"] is True
    assert told["kind"] == "REFUTED"


def test_replay(saved: Path, tmp_path: Path) -> None:
    wrong, told = replay(saved)
    assert wrong
    assert told.startswith("still wrong with torch")
    (tmp_path / "verdict.json").write_text((saved / "verdict.json").read_text())
    (tmp_path / "repro.py").write_text("pass\n")
    wrong, told = replay(tmp_path)
    assert not wrong
    assert told.startswith("fixed with torch")
    (tmp_path / "repro.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(FoldproofError, match="does not run"):
        replay(tmp_path)
    with pytest.raises(FoldproofError, match="no verdict.json"):
        replay(tmp_path / "elsewhere")


class Zeros(torch.nn.Module):
    """Inductor's x·0 is 0, where x is nan, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 0 + 1).relu()


def refuse(graph: torch.fx.Graph) -> None:
    """A custom pass that fails where something is multiplied."""
    if any("mul" in node.name for node in graph.nodes):
        raise RuntimeError("no products, please")


def test_a_suspect_is_saved(tmp_path: Path) -> None:
    """Its proof is undecided, since infinities make a nan."""
    x = torch.tensor([1.0, float("nan"), 2.0])
    saved = foldproof.audit(Zeros().eval(), (x,), locate=False).save(tmp_path)
    told = json.loads((saved / "verdict.json").read_text())
    assert told["pass"] == "constant_fold_uniform_value" and told["reproduced"] is True
    assert "equal_nan=True" in (saved / "repro.py").read_text()
    stages = {stage["name"]: stage["kind"] for stage in told["stages"]}
    assert stages.pop("inductor") == "REFUTED"
    assert stages == dict.fromkeys(["eager", "dynamo", "aot_eager", "aot_eager_decomp_partition"], "ROUNDING")
    report = (saved / "report.md").read_text()
    assert "finite on one side of it only" in report and "inductor is the first that is wrong" in report
    assert "python -m torch._inductor.compiler_bisector run python repro.py" in report
    assert replay(saved)[0]


def test_a_crash_is_saved(tmp_path: Path) -> None:
    found = foldproof.audit(Zeros().eval(), (torch.ones(3),), options={"joint_custom_pre_pass": refuse})
    saved = found.save(tmp_path)
    told = json.loads((saved / "verdict.json").read_text())
    assert told["error"].endswith("RuntimeError: no products, please") and told["reproduced"] is True
    assert "no products, please" in (saved / "report.md").read_text()
    wrong, sentence = replay(saved)
    assert wrong and sentence.startswith("still crashes with torch")
    (saved / "repro.py").write_text("pass\n")
    wrong, sentence = replay(saved)
    assert not wrong and sentence.startswith("fixed with torch")
