"""Writes docs/benchmarks.md: runs benchmarks/ and tabulates what they measured (ratios within one run).

Run from the repository: ``make docs-bench``, which takes some minutes and wants a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

PAGE = Path(__file__).with_name("benchmarks.md")

HEAD = """# Benchmarks

Made by `make docs-bench` with torch {torch} on {machine}, one thread. Ratios are taken within one run, since
absolute times mean little on shared machines; networks are in `benchmarks/networks.py`.

* The target for `prove` per prime is 3 times one float64 forward of *before* plus one of *after*. The time of the whole
  call, with the scout, the float64 check and the run of the real programs, is divided by the number of primes and a
  half: the scout runs one of the two programs with one prime. *After* is PyTorch's own decomposition of *before*, whose
  large products are those of *before* and taken from there.
* `fuse` without proofs is measured against torchao's `_fuse_conv_bn_` (on a GraphModule, in place) and
  `torch.fx.experimental.optimization.fuse` (which copies the model, unless it is told to work in place).
* Growth is over chains of 10, 200 and 2,000 conv→BatchNorm→ReLU blocks; the target is that a block takes at most 1.5
  times as long in the longest.
* `test_folded` runs models of `transformers`, of the size that people deploy, folded and unfolded in turns: in eager,
  under `torch.compile`, the same with freezing, and in ExecuTorch's runtime with XNNPACK. Its target is at most 1. The
  median is of one turn.
* `test_parallel_linears[n-B-K]` is the sum of n rectified linears of one B×K tensor, K features each: eager, fused by
  `batch_linears`, with weights concatenated by hand, and compiled by Inductor, by Inductor with `batch_linear` (let to
  work on two and more), by `backend="foldproof"`, and by Inductor after concatenation by hand. `test_blocks` has two
  layers of BERT and of Llama (two heads of keys and values for eight of queries), at 1 and 64 tokens. The target is at
  most 1, beyond noise; where it was declined, the same program is measured twice, which shows the noise. Of processor
  time; the median is of one turn of all.
* `test_audit_over_compile` is `foldproof audit`, taps and proofs together, against the compilation alone, in the same
  process; the comparison of numbers is left out. Both start with empty caches and without `torch.nn`'s fast path, which
  makes one operator of each encoder layer and leaves next to nothing to compile. The target is at most 5. The median is
  of one audit and one compilation. Wall-clock times.

| benchmark | median seconds | measured |
|---|---|---|
"""


def main() -> None:
    root = PAGE.parent.parent
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "pytest", "benchmarks", "-q", f"--benchmark-json={found}"]
        subprocess.run(command, cwd=root, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        results = json.loads(found.read_text())["benchmarks"]
    rows = []
    for result in results:
        told = "; ".join(f"{name}: {value}" for name, value in result["extra_info"].items())
        rows.append(f"| `{result['name']}` | {result['stats']['median']:.2f} | {told} |\n")
    text = HEAD.format(torch=torch.__version__, machine=platform.machine()) + "".join(rows)
    written = PAGE.with_suffix(".tmp")
    written.write_text(text, encoding="utf-8")
    os.replace(written, PAGE)


if __name__ == "__main__":
    main()
