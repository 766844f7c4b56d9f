"""Writes docs/benchmarks.md: runs benchmarks/ and tabulates the measurements (ratios within one run).

Run from the repository: ``make docs-bench``. It takes some minutes and needs an otherwise idle machine. With the name
of a file in benchmarks/, and options of pytest, ``python -m docs.make_benchmarks test_large -k fuse`` measures these
rows anew and keeps the others.
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

from docs.writing import write_whole

PAGE = Path(__file__).with_name("benchmarks.md")

HEAD = """# Benchmarks

Made by `make docs-bench` with torch {torch} on {machine}, one thread. Ratios are taken within one run, since
absolute times mean little on shared machines. The networks are in `benchmarks/networks.py`.

* `test_prove_per_prime`: the time per prime, relative to one float64 forward of *before* plus one of *after*. The
  target is 1.5. The time of the whole call (with the scout run, the float64 check and the run of the real programs) is
  divided by the number of primes plus one half, since the scout runs one of the two programs with one prime. *After* is
  PyTorch's own decomposition of *before*, so the large products of *before* are reused.
* `test_fuse_against_torchao_and_fx`: `fuse` without proofs, relative to torchao's `_fuse_conv_bn_` (on a GraphModule,
  in place) and `torch.fx.experimental.optimization.fuse` (on a copy by default).
* `test_growth`: chains of 10, 200 and 2,000 conv→BatchNorm→ReLU blocks. The target for a block of the longest chain is
  at most 1.5 times the time of a block of the shortest.
* `test_folded`: models of `transformers` in deployed sizes, folded and unfolded in turns: in eager mode, under
  `torch.compile`, with freezing, and in ExecuTorch's runtime with XNNPACK. The target is at most 1. The median is of
  one turn.
* `test_parallel_linears[n-B-K]`: the sum of n rectified linears of one B×K tensor, with K features each: eager, fused
  by `batch_linears`, with weights concatenated by hand, and compiled by Inductor, by Inductor with `batch_linear`
  (enabled for two and more), by `backend="foldproof"`, and by Inductor after concatenation by hand. `test_blocks`: two
  layers of BERT and of Llama (two heads of keys and values, eight of queries), at 1 and 64 tokens. The target is at
  most 1, beyond noise. For declined rewrites the same program is measured twice, which shows the noise. Processor time;
  the median is of one turn of all programs.
* `test_audit_over_compile`: `foldproof audit`, taps and proofs together, relative to the compilation alone, in the same
  process and without the comparison of outputs. Both run every pass, with the kernels in Inductor's cache, and without
  `torch.nn`'s fast path, which turns each encoder layer into one operator and leaves little to compile. The target is
  at most 2, in processor time. The median is of one audit and one compilation, in wall-clock time.
* `test_large`: models in deployed sizes, each in a process of its own, whose start (imports, an export) is part of the
  median; *seconds* are processor time of the proof or fold alone. Language models read 8 tokens and are proved equal to
  PyTorch's decomposition of their export; those *on meta* have no weights.

Each row names the commit that it was measured at.

| benchmark | median seconds | measured | commit |
|---|---|---|---|
"""


def main() -> None:
    root = PAGE.parent.parent
    only, options = sys.argv[1:2], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        files = [f"benchmarks/{name}.py" for name in only] or ["benchmarks"]
        command = [sys.executable, "-m", "pytest", *files, *options, "-q", f"--benchmark-json={found}"]
        subprocess.run(command, cwd=root, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        results = json.loads(found.read_text())["benchmarks"]
    rows = _rows(PAGE.read_text(encoding="utf-8")) if only else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout
    for result in results:
        told = "; ".join(f"{name}: {value}" for name, value in result["extra_info"].items())
        rows[result["name"]] = f"{result['stats']['median']:.2f} | {told} | {commit.strip()}"
    head = HEAD.format(torch=torch.__version__, machine=platform.machine())
    text = head + "".join(f"| `{name}` | {row} |\n" for name, row in rows.items())
    write_whole(PAGE, text)


def _rows(page: str) -> dict[str, str]:
    """Return the rows of the page, by benchmark."""
    rows = [line.strip("|\n ").split(" | ", 1) for line in page.splitlines() if line.startswith("| `")]
    return {name.strip("`"): row for name, row in rows}


if __name__ == "__main__":
    main()
