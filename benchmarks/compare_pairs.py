"""The verdicts of `foldproof.compare` on correct pairs and on planted bugs (not a test: it takes minutes).

``python -m benchmarks.compare_pairs [--formulas NAME...] [--routes NAME...] [--bugs] [--seeds N]`` prints false alarms
(correct pairs that are REFUTED), false calm (bugs of which "neither side is wrong" is said), and what else is no plain
ROUNDING.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import foldproof
from foldproof import CompareResult, Kind
from foldproof.log import hushed
from zoo.formulas import FORMULAS, INPUTS, Formula

CORRECT_AT = ("0", "1e3", "tiny", "tiniest")
TRIALS = 6
MIN_VISIBLE = 8.0
"""Times the reference's own rounding, and that of its result, by which a bug moves the outputs at least."""


def _file(name: str, save: Callable[[nn.Module, Tensor, Path], None]) -> Callable[[Formula, Path], Any]:
    def made(formula: Formula, folder: Path) -> Any:
        path = folder / name
        save(formula.program(formula.function), formula.input("0"), path)
        return str(path)

    return made


def _save_pt2(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.export.save(torch.export.export(model, (x,)).run_decompositions(), path)


def _save_onnx(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.onnx.export(model, (x,), str(path), dynamo=True, verbose=False)


def _save_pte(model: nn.Module, x: Tensor, path: Path, delegated: bool) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()] if delegated else []
    )
    path.write_bytes(lowered.to_executorch().buffer)


def _save_openvino(model: nn.Module, x: Tensor, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(torch.export.export(model, (x,))), path, compress_to_fp16=False)


def _save_script(model: nn.Module, x: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(model, (x,)), path)


def _call(program: nn.Module, x: Tensor) -> Any:
    return program(x)


def _call_by_arrays(program: nn.Module, x: Tensor) -> Any:
    return program(x).numpy()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _compiled(backend: str) -> Callable[[Formula, Path], Any]:
    return lambda formula, folder: torch.compile(formula.program(formula.function), backend=backend)


ROUTES: dict[str, Callable[[Formula, Path], Any]] = {
    "formula": lambda formula, folder: formula.program(formula.equal),
    "function": lambda formula, folder: partial(_call, formula.program(formula.equal)),
    "aot_eager": _compiled("aot_eager_decomp_partition"),
    "pt2": _file("model.pt2", _save_pt2),
    "torchscript": _file("model.pt", _save_script),
    "onnx": _file("model.onnx", _save_onnx),
    "openvino": _file("model.xml", _save_openvino),
    "executorch": _file("portable.pte", lambda m, x, path: _save_pte(m, x, path, False)),
    "xnnpack": _file("xnnpack.pte", lambda m, x, path: _save_pte(m, x, path, True)),
    "inductor": _compiled("inductor"),
}
"""Makers of the other numbers, called once for each formula; their results are compared at several inputs."""


def compare(formula: Formula, reference: Any, candidate: Any, at: str, seed: int) -> CompareResult:
    """Compare on inputs of a kind, without looking for the origin."""
    return foldproof.compare(reference, candidate, (formula.input(at),), trials=TRIALS, seed=seed, locate=False)


def is_calm(found: CompareResult) -> bool:
    """True if a reader takes it that nothing is wrong."""
    return found.kind is Kind.ROUNDING and "neither side is wrong" in found.verdict.reason


def is_visible(formula: Formula, wrong: nn.Module, at: str) -> bool:
    """True if the bug moves the outputs by more than the reference's own rounding at these inputs."""
    x, right = formula.input(at), formula.program(formula.function)
    exact, other = right.double()(x.double()), wrong.double()(x.double())
    size = 2.0**-24 * exact.square().mean().sqrt() + (right.float()(x) - exact).square().mean().sqrt()
    wrong.float()
    return bool((other - exact).square().mean().sqrt() > MIN_VISIBLE * size)


def correct_pairs(names: list[str], routes: list[str], seeds: int) -> int:
    """Print what is no plain ROUNDING; return the number of false alarms."""
    counts: Counter[str] = Counter()
    for name in names:
        formula = FORMULAS[name]
        for route in routes:
            torch._dynamo.reset()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    with hushed(), warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        candidate = ROUTES[route](formula, Path(folder))
                except Exception as error:
                    counts["not made"] += 1
                    _say(f"{name} {route}: not made, {str(error).splitlines()[0][:100]}")
                    continue
                for at in CORRECT_AT:
                    for seed in range(seeds):
                        _pair(counts, f"{name} {route} at {at} seed {seed}", formula, candidate, at, seed)
    _say(str(dict(counts)))
    return counts["REFUTED"]


def _pair(counts: Counter[str], title: str, formula: Formula, candidate: Any, at: str, seed: int) -> None:
    start = time.perf_counter()
    pairs = [("", formula.program(formula.function), candidate)]
    if isinstance(candidate, nn.Module) and not hasattr(candidate, "_orig_mod"):
        pairs.append((" reversed", candidate, pairs[0][1]))
    for which, one, other in pairs:
        try:
            found = compare(formula, one, other, at, seed)
        except Exception as error:
            counts["failed"] += 1
            _say(f"{title}{which}: {type(error).__name__} {error}")
            continue
        counts[str(found.kind)] += 1
        if found.kind is not Kind.ROUNDING:
            seconds = time.perf_counter() - start
            _say(f"{title}{which}: {found.kind} {found.verdict.reason} ({seconds:.1f} s)")


def planted_bugs(names: list[str], seeds: int) -> int:
    """Print verdicts on bugs that nobody is warned of; return their number."""
    counts: Counter[str] = Counter()
    for name in names:
        formula = FORMULAS[name]
        right = formula.program(formula.function)
        for bug, function in formula.wrong.items():
            for at in INPUTS:
                wrong = formula.program(function)
                if not is_visible(formula, wrong, at):
                    counts["invisible"] += 1
                    continue
                for seed in range(seeds):
                    pairs = {
                        "": (right, wrong),
                        " opaque": (right, partial(_call_by_arrays, wrong)),
                        " reversed": (wrong, right),
                    }
                    kinds = {}
                    for which, (one, other) in pairs.items():
                        found = compare(formula, one, other, at, seed)
                        kinds[which] = found.kind
                        counts[str(found.kind)] += 1
                        if is_calm(found):
                            counts["calm"] += 1
                            _say(f"{name} {bug} at {at} seed {seed}{which}: {found.verdict}")
                            _say(f"   {found.noise_floor}\n   {found.truth_distance}")
                        elif found.kind is Kind.UNDECIDED:
                            _say(
                                f"{name} {bug} at {at} seed {seed}{which}: UNDECIDED {found.verdict.reason}",
                            )
    _say(str(dict(counts)))
    return counts["calm"]


def main() -> int:
    """Run what is asked for."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--routes", nargs="*", default=None, choices=ROUTES)
    asked.add_argument("--formulas", nargs="*", default=list(FORMULAS), choices=FORMULAS)
    asked.add_argument("--bugs", action="store_true")
    asked.add_argument("--seeds", type=int, default=1)
    options = asked.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    if options.bugs:
        return planted_bugs(options.formulas, options.seeds)
    return correct_pairs(options.formulas, options.routes or list(ROUTES), options.seeds)


if __name__ == "__main__":
    sys.exit(bool(main()))
