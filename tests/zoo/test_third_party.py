"""Third-party models: the table, a missing package, and one model of each package that is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import foldproof
from foldproof import Kind
from foldproof.errors import FoldproofError
from zoo import third_party
from zoo.measure import MODELS, PARTS, tools
from zoo.third_party import FOLDER, THIRD_PARTY, load
from zoo.tools import OF_TIMM, TOOLS, batch_norms


def test_each_model_is_in_one_part_of_the_page() -> None:
    assert len(THIRD_PARTY) >= 40
    assert len(set(MODELS)) == len(MODELS) == sum(map(len, PARTS.values()))
    assert set(THIRD_PARTY) <= set(MODELS)


def test_the_tool_of_timm_is_for_its_models() -> None:
    assert OF_TIMM in tools("timm_repvgg_a0")
    assert OF_TIMM not in tools("resnet") + tools("monai_unet")


def test_a_missing_package_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(third_party, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(FOLDER)])
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FoldproofError, match="needs the module timm; run: pip install --no-deps --target .* timm=="):
        load("timm_repvgg_a0")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="`make docs-zoo` installs the packages")
@pytest.mark.parametrize("name", ["timm_repvgg_a0", "smp_fpn", "pyg_gin", "monai_unet", "speechbrain_resnet"])
def test_folded_and_proved(name: str) -> None:
    made = load(name)
    program = torch.export.export(made.model, made.inputs)
    result = foldproof.fuse(program, made.inputs)
    assert result.verdict.kind is Kind.PROVED
    assert batch_norms(result.program.graph.nodes) < batch_norms(program.graph.nodes)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="`make docs-zoo` installs the packages")
def test_timm_reparameterizes_a_model_that_can_be() -> None:
    repvgg, mnasnet = (load(f"timm_{name}") for name in ("repvgg_a0", "mnasnet_small"))
    with torch.no_grad():
        left = TOOLS[OF_TIMM](repvgg)
        torch.testing.assert_close(left.run()[0], repvgg.model(*repvgg.inputs), rtol=1e-3, atol=1e-3)
    assert left.batch_norms == 0
    assert TOOLS[OF_TIMM](mnasnet).batch_norms == sum(isinstance(m, nn.BatchNorm2d) for m in mnasnet.model.modules())
