"""Results of every command, as it writes them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foldproof.cli import main

from ..cli.conftest import MODELS, TWICE

MORE = (
    TWICE
    + """

def twice():
    return seeded(Twice), image()


def moved():
    model = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.BatchNorm1d(4))
    return seeded(model), image()
"""
)

COMMANDS = {
    "fuse": ["fuse", "models.py:moved", "-o", "out.pt2"],
    "fuse_declined": ["fuse", "models.py:residual", "-o", "out.pt2"],
    "fold_qat": ["fold-qat", "models.py:quantized", "-o", "out.pt2"],
    "explain": ["explain", "models.py:residual"],
    "prove": ["prove", "models.py:conv_bn", "models.py:conv_bn"],
    "prove_refuted": ["prove", "models.py:conv_bn", "models.py:without_bias_of_bn"],
    "prove_undecided": ["prove", "models.py:sparse", "models.py:sparse"],
    "compare": ["compare", "models.py:deep", "--against", "aot_eager"],
    "compare_refuted": ["compare", "models.py:conv_bn", "--against", "wrong.pt2"],
    "audit": ["audit", "models.py:twice", "--compiler", "fx", "--save", "saved"],
    "audit_proved": ["audit", "models.py:conv_bn", "--compiler", "fx"],
}


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The JSON of ``--json`` for one of `COMMANDS`, each of which runs once; for "audit_saved", that of ``--save``."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "models.py").write_text(MODELS + MORE)
    known: dict[str, dict[str, Any]] = {}

    def make(name: str) -> dict[str, Any]:
        if name == "audit_saved":
            make("audit")
            known[name] = json.loads((folder / "saved" / "verdict.json").read_text())
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                if name == "compare_refuted":
                    _export_wrong()
                assert main([*COMMANDS[name], "--json", f"{name}.json"]) in (0, 1, 3)
            known[name] = json.loads((folder / f"{name}.json").read_text())
        return copy.deepcopy(known[name])

    return make


def _export_wrong() -> None:
    import torch

    from foldproof.program.loading import load_spec

    wrong = load_spec("models.py:without_bias_of_bn")
    torch.export.save(torch.export.export(wrong.program, wrong.require_inputs()), Path("wrong.pt2"))
