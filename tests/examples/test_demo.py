"""The demo, as a newcomer runs it, and on smaller photographs, which cost a third."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"

SMALLER = f"""
import sys

sys.path.append({str(DEMO.parent)!r})
import demo

demo.SIDE, demo.ROUNDS, demo.__file__ = 128, 1, __file__
make = demo.make

if __name__ == "__main__":
    demo.main()
"""
"""The demo with other constants, and a SPEC that has them, too."""


@pytest.mark.parametrize("size", ["smaller", pytest.param("whole", marks=pytest.mark.exhaustive)])
def test_demo(size: str, tmp_path: Path) -> None:
    # `make test` installs it; it is in no extra, because it has to be installed without its dependencies.
    pytest.importorskip("efficientnet_lite_pytorch")
    program = DEMO
    if size == "smaller":
        program = tmp_path / "smaller.py"
        program.write_text(SMALLER)
    ran = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert ran.returncode == 0, ran
    assert all(line.startswith("foldproof: ") for line in ran.stderr.splitlines()), ran.stderr  # progress
    assert re.search(r"aten\.batch_norm\.default +49 +0\n", ran.stdout)
    assert "50 rewrites: 50 PROVED" in ran.stdout  # and the dropout in front of the last linear goes
    assert "\n2 declined\n" in ran.stdout  # convolutions that take fewer multiplications apart
    assert len(re.findall(r"conv2d_\d+ are not merged into one", ran.stdout)) == 2
    assert re.search(r"chelsea +before: Egyptian cat .* after: Egyptian cat", ran.stdout)
    assert re.search(r"coffee +before: espresso .* after: espresso", ran.stdout)
    difference = re.search(r"largest difference of any logit: (\S+),", ran.stdout)
    assert difference is not None and 0 < float(difference[1]) < 1e-3
    assert ran.stdout.count("\nPROVED: ") == 1
    assert ran.stdout.count("\nREFUTED: ") == 1
    assert "counterexample: " in ran.stdout
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["efficientnet_lite0_folded.pt2"]
