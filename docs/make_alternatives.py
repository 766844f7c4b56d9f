"""Measures other tools for docs/alternatives.md: ``python -m docs.make_alternatives`` (minutes; not in ``make docs``).

It wants the packages polygraphy, onnxsim and z3-solver, which foldproof does not need. The bisector runs in processes
of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import foldproof
from foldproof.log import log_caught
from zoo.commit import name_commit
from zoo.volume.judge import GROUPS, MIN_CHANGE, Group
from zoo.volume.pairs import Pair, distance, make_pair

PAGE = Path(__file__).with_name("alternatives.md")
START, END = "<!-- measured: python -m docs.make_alternatives -->\n", "<!-- end -->\n"
PAIRS = 168
EXPORTED = 32
"""Pairs that are exported to ONNX for `onnxsim.certify`, which takes a second or more each."""
SECONDS = 10.0
"""Time for one call of `onnxsim.certify`."""
FOUND = ("inductor_add_alpha", "inductor_less_largest")
"""Findings in Inductor's default setting, for the bisector."""

Numbers = list[Tensor]


def _pairs(group: Group) -> Iterator[Pair]:
    """The pairs of a group, as docs/volume.md has them."""
    seed = 0
    while True:
        pair = make_pair(seed, group.dtype, group.changed, group.stateful)
        if not group.changed or distance(pair).largest > MIN_CHANGE:
            yield pair
        seed += 1


def _first(group: Group, count: int) -> list[Pair]:
    return [pair for pair, _ in zip(_pairs(group), range(count))]


def _numbers(program: Any, pair: Pair) -> Numbers:
    called = program.module() if isinstance(program, torch.export.ExportedProgram) else program
    with torch.no_grad():
        out = called(*pair.inputs)
    return [out] if isinstance(out, Tensor) else list(out)


def _assert_close(a: Numbers, b: Numbers) -> str:
    try:
        torch.testing.assert_close(b, a, equal_nan=True)
    except AssertionError:
        return "differs"
    return "same"


def _polygraphy(a: Numbers, b: Numbers) -> str:
    comparator = importlib.import_module("polygraphy.comparator")
    sides = [
        comparator.IterationResult(
            {str(i): x.float().contiguous().numpy() for i, x in enumerate(side)}, runner_name=name
        )
        for name, side in (("a", a), ("b", b))
    ]
    compare = comparator.CompareFunc.simple()  # its default tolerances
    return "same" if all(bool(found) for found in compare(*sides).values()) else "differs"


def _certify(pair: Pair) -> str:
    onnx, certify = importlib.import_module("onnx"), importlib.import_module("onnxsim.certify").certify
    sides = []
    with tempfile.TemporaryDirectory() as folder:
        for program in (pair.before, pair.after):
            file = Path(folder) / "model.onnx"
            names: dict[str, Any] = {
                "input_names": [f"x{i}" for i in range(len(pair.inputs))],
                "output_names": [f"y{i}" for i in range(len(_numbers(pair.before, pair)))],
            }
            try:
                torch.onnx.export(program, pair.inputs, file, dynamo=True, optimize=False, verbose=False, **names)
            except Exception as error:  # what can't be exported is no pair for it
                log_caught(error, "exporting to ONNX")
                return "not exported"
            sides.append(onnx.load(str(file)))
    report = certify(*sides, total_timeout_ms=int(1000 * SECONDS))
    said = list(report.outputs.values())
    if any(one.startswith("refuted") for one in said):
        return "differs"
    return "same" if report.ok else "not decided"


def _foldproof(pair: Pair) -> str:
    kind = foldproof.prove(pair.before, pair.after, pair.inputs).kind
    return {"REFUTED": "differs", "UNDECIDED": "not decided"}.get(kind.value, "same")


def _by_numbers(judge: Callable[[Numbers, Numbers], str]) -> Callable[[Pair], str]:
    return lambda pair: judge(_numbers(pair.before, pair), _numbers(pair.after, pair))


def measure_pairs() -> list[str]:
    """Rows: a judge, a group of pairs, and its answers."""
    rows = []
    tools: list[tuple[str, Callable[[Pair], str], int, tuple[torch.dtype, ...]]] = [
        ("`torch.testing.assert_close`", _by_numbers(_assert_close), PAIRS, (torch.float32, torch.bfloat16)),
        (f"Polygraphy {_version('polygraphy')}", _by_numbers(_polygraphy), PAIRS, (torch.float32, torch.bfloat16)),
        (f"onnxsim {_version('onnxsim')}, `certify`", _certify, EXPORTED, (torch.float32,)),
        ("`foldproof.prove`", _foldproof, EXPORTED, (torch.float32, torch.bfloat16)),
    ]
    for name, judge, count, dtypes in tools:
        for dtype in dtypes:
            answers, started = {}, time.process_time()
            for changed in (False, True):
                [group] = [g for g in GROUPS if (g.dtype, g.changed, g.stateful) == (dtype, changed, False)]
                answers[changed] = Counter(judge(pair) for pair in _first(group, count))
            each = (time.process_time() - started) / (2 * count)
            told = [str(answers[side][said]) for side in (False, True) for said in ("same", "differs", "not decided")]
            lost = sum(answers[side]["not exported"] for side in (False, True))
            pairs = f"{count} + {count}" + f" ({lost} not exported)" * bool(lost)
            cells = [name, str(dtype).removeprefix("torch."), pairs, *told, f"{each:.2f}"]
            rows.append("| " + " | ".join(cells) + " |")
            sys.stderr.write(rows[-1] + "\n")
    return rows


def measure_bisector() -> list[str]:
    """Rows: a finding, and what PyTorch's bisector says of its program."""
    rows = []
    for name in FOUND:
        repro = PAGE.parent / "findings" / name / "repro.py"
        command = [sys.executable, "-m", "torch._inductor.compiler_bisector", "run", sys.executable, str(repro)]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
            ran = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        said = re.findall(r"BisectionResult\([^\n]*\)", ran.stdout + ran.stderr) or ["nothing"]
        rows.append(f"| [{name}](findings/{name}.md) | `{said[-1]}` | {time.perf_counter() - started:.0f} |")
        sys.stderr.write(rows[-1] + "\n")
    return rows


def _version(package: str) -> str:
    importlib.import_module(package)
    return version(package)


def page(pairs: list[str], bisector: list[str]) -> str:
    """The page with new tables."""
    made = f"""\
{START}
Measured with torch {torch.__version__}, Python {sys.version.split()[0]}, one thread, at commit {name_commit()}.

| judge | dtype | pairs, equal + changed | equal: same | equal: differs | equal: not decided | changed: same | \
changed: differs | changed: not decided | CPU seconds each |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(pairs)}

| finding | the bisector's answer | seconds |
|---|---|---|
{chr(10).join(bisector)}

{END}"""
    old = PAGE.read_text(encoding="utf-8")
    return old.partition(START)[0] + made + old.partition(END)[2]


def main() -> None:
    """Measure, then write the page in one go."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    text = page(measure_pairs(), measure_bisector())
    draft = PAGE.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(PAGE)


if __name__ == "__main__":
    main()
