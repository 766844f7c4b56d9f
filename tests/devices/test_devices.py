"""Programs on a device other than the CPU, in a process of its own: PyTorch keeps a device until the process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.devices import far
from tests.devices.checks import CHECKS

ROOT = Path(__file__).parents[2]
DEVICES = ["far", *(["cuda"] if torch.cuda.is_available() else [])]
pytestmark = pytest.mark.skipif(far.COMPILER is None, reason="needs g++")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=given, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=DEVICES)
def told(request: pytest.FixtureRequest) -> dict[str, str]:
    """The outcome of each check."""
    ran = run("-m", "tests.devices.checks", request.param)
    found = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert set(found) == set(CHECKS), ran.stderr[-2000:]
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_a_check(told: dict[str, str], name: str) -> None:
    assert told[name] == "ok"


WITHOUT_FLOAT64 = """
import torch, foldproof
from tests.devices import far
far.register()
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval().to("far")
x = torch.randn(4, 3).to("far")
for ask in (lambda: foldproof.prove(model, model, (x,)), lambda: foldproof.fuse(model, (x,)),
            lambda: foldproof.compare(model, model, (x,)), lambda: foldproof.audit(model, (x,), compiler="fx")):
    try:
        print(" ".join(str(ask()).split()))
    except foldproof.FoldproofError as error:
        print(error)
"""


def test_a_device_without_float64_is_named() -> None:
    ran = run("-W", "ignore", "-c", WITHOUT_FLOAT64, FAR_WITHOUT_FLOAT64="1")
    lines = ran.stdout.splitlines()
    assert len(lines) == 4 and all("far:0, which has no float64" in line for line in lines), ran
    assert all("move the program and its inputs to the CPU" in line for line in lines)
