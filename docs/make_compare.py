"""Writes docs/compare.md. Run by ``make docs``; by hand: ``python -m docs.make_compare`` (ten minutes of two cores)."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import foldproof
from docs.writing import write_whole
from examples import parallel_linears
from foldproof.verdict import Kind
from zoo import ZOO, Family
from zoo.commit import name_commit
from zoo.planted import BUGS, OPERATORS, Bug, deep, everything, planted, ulps
from zoo.random_models import random_model

PAGE = Path(__file__).with_name("compare.md")
WORKERS = os.cpu_count() or 1
SIZES = range(0, 16, 2)
"""Planted errors of 2^k units in the last place."""
DEPTHS = (1, 4, 16)
BFLOAT16 = tuple(name for name in ZOO if ZOO[name].family in (Family.TEXT, Family.CONVOLUTION, Family.HEAD))
INDUCTOR = ("informer_distilling", "superpoint", "bert", "llama")
"""Models of the zoo that Inductor compiles; it takes its time."""


def main() -> None:
    """Compare everything, then write the page in one go."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = pool.map(_run, _jobs())
        results: list[Found] = []
        for one in found:
            results.append(one)
            sys.stderr.write(f"{len(results)} {one.group} {one.name}: {one.kind} {one.seconds:.0f} s\n")
    write_whole(PAGE, page(results))


@dataclass(frozen=True)
class Job:
    """One comparison to run: its group, its name, and the details of the group."""

    group: str
    name: str
    detail: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Found:
    """A comparison as the page shows it."""

    group: str
    name: str
    detail: tuple[Any, ...]
    kind: str
    identical: bool
    sigma: float
    worst: float
    at: str
    seconds: float
    text: str


def _jobs() -> list[Job]:
    jobs = [Job("seed", "PyTorch #179574")]
    jobs += [Job("bug", bug.name, (i,)) for i, bug in enumerate(BUGS)]
    jobs += [Job("ulps", operator, (k,)) for operator in OPERATORS for k in SIZES]
    jobs += [Job("depth", str(d), (d, k)) for d in DEPTHS for k in SIZES]
    jobs += [Job("zoo, decomposed", name) for name in ZOO]
    jobs += [Job("zoo in bfloat16, decomposed", name) for name in BFLOAT16]
    jobs += [Job("zoo, Inductor", name) for name in INDUCTOR]
    jobs += [Job("random models, Inductor", str(i)) for i in range(16)]
    jobs += [Job("random models, decomposed", str(i)) for i in range(16, 76)]
    return jobs + [Job("random models, aot_eager", str(i)) for i in range(76, 76 + 50)]


def _run(job: Job) -> Found:
    start = time.perf_counter()
    warnings.simplefilter("ignore")
    torch._dynamo.reset()
    try:
        result = _RUN[job.group](job)
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Found(job.group, job.name, job.detail, "not run", False, 0, 0, "", time.perf_counter() - start, text)
    floor, rounding, at = result.noise_floor, result.verdict.rounding, result.verdict.difference
    return Found(
        job.group,
        job.name,
        job.detail,
        str(result.kind),
        result.identical,
        floor.sigma if floor else 0.0,
        (rounding.sigma or 0.0) if rounding else 0.0,
        at.operator if at else "",
        time.perf_counter() - start,
        str(result),
    )


def _seed(job: Job) -> foldproof.CompareResult:
    return foldproof.compare(*_against(parallel_linears.make(), "inductor"))


def _bug(job: Job) -> foldproof.CompareResult:
    model, inputs = everything()
    return foldproof.compare(model, planted(model, BUGS[job.detail[0]]), inputs, trials=4)


def _ulps(job: Job) -> foldproof.CompareResult:
    model, inputs = everything()
    bug = Bug("", OPERATORS[job.name], ulps(job.detail[0]), job.name)
    return foldproof.compare(model, planted(model, bug), inputs, trials=1)


def _depth(job: Job) -> foldproof.CompareResult:
    depth, k = job.detail
    model, inputs = deep(depth)
    bug = Bug("", OPERATORS["aten.linear.default"], ulps(k), "aten.linear.default")
    return foldproof.compare(model, planted(model, bug), inputs, trials=1)


def _decomposed(job: Job) -> foldproof.CompareResult:
    sample = ZOO[job.name].build()
    return _core(sample.model, sample.inputs)


def _bfloat16(job: Job) -> foldproof.CompareResult:
    sample = ZOO[job.name].build()
    inputs = tuple(x.bfloat16() if x.is_floating_point() else x for x in sample.inputs)
    return _core(sample.model.bfloat16(), inputs)


def _core(model: nn.Module, inputs: tuple[Any, ...]) -> foldproof.CompareResult:
    with torch.no_grad():
        candidate = torch.export.export(model, inputs).run_decompositions()
    return foldproof.compare(model, candidate, inputs, trials=2, locate=False)


def _zoo_inductor(job: Job) -> foldproof.CompareResult:
    sample = ZOO[job.name].build()
    return foldproof.compare(sample.model, "inductor", sample.inputs, trials=4, locate=False)


def _random_inductor(job: Job) -> foldproof.CompareResult:
    model, inputs = random_model(int(job.name))
    return foldproof.compare(model, "inductor", inputs, trials=4, locate=False)


def _random_aot_eager(job: Job) -> foldproof.CompareResult:
    model, inputs = random_model(int(job.name))
    return foldproof.compare(model, "aot_eager", inputs, trials=4, locate=False)


def _random_decomposed(job: Job) -> foldproof.CompareResult:
    return _core(*random_model(int(job.name)))


def _against(made: tuple[nn.Module, tuple[Any, ...]], what: str) -> tuple[nn.Module, str, tuple[Any, ...]]:
    return made[0], what, made[1]


_RUN: dict[str, Callable[[Job], foldproof.CompareResult]] = {
    "seed": _seed,
    "bug": _bug,
    "ulps": _ulps,
    "depth": _depth,
    "zoo, decomposed": _decomposed,
    "zoo in bfloat16, decomposed": _bfloat16,
    "zoo, Inductor": _zoo_inductor,
    "random models, Inductor": _random_inductor,
    "random models, decomposed": _random_decomposed,
    "random models, aot_eager": _random_aot_eager,
}


def page(results: Sequence[Found]) -> str:
    """The page as Markdown."""
    return "\n\n".join(
        [
            _introduction(),
            "## The original report",
            _SEED,
            f"```\n{_of(results, 'seed')[0].text.replace(str(Path.cwd()) + os.sep, '')}\n```",
            "## Wrong kernels",
            _WRONG,
            _bugs(_of(results, "bug")),
            "## Smallest error found",
            _POWER,
            _power(_of(results, "ulps")),
            _DEPTH,
            _depths(_of(results, "depth")),
            "## Correct programs",
            _CORRECT,
            _pairs(results),
            _exceptions(results),
        ]
    )


def _of(results: Sequence[Found], group: str) -> list[Found]:
    return [r for r in results if r.group == group]


def _introduction() -> str:
    versions = f"torch {torch.__version__}, transformers {version('transformers')}, foldproof {foldproof.__version__}"
    return f"""\
# Rounding or a wrong answer?

<!-- Written by docs/make_compare.py: run `make docs`, don't edit. -->

`foldproof.compare` checks programs that only give numbers: compiled code, other runtimes, saved outputs. It computes
the float64 result and the **noise floor**: repeated runs in float64 move every operator's result at random within its
own rounding error bound, and the spread of the outputs is the difference that rounding explains. Scores are distances
to the float64 result in standard deviations of that spread: the root mean square (rms) and the worst element. Perturbed
runs are scored in the same way. A difference of up to twice their largest scores is ROUNDING. A difference of at least
four times these scores, confirmed with 48 perturbed runs and not reached by larger noise (which crosses the edges of
branches), is REFUTED. Anything in between is UNDECIDED.

Everything that a call changes is compared: outputs (values, shape, dtype, and memory that they share), and inputs,
parameters and buffers after the call, each by name. A program that writes to its parameters or buffers is called twice
in a row, from the same state each time, the second time on other inputs; the float64 result and the noise floor are
those of both calls. Another dtype of an output is REFUTED, unless `precision=` (`--precision`) names it, and so is a
view that became a copy, for a later write tells them apart. Other strides of equal values are no wrong answer, since
compilers may change them; a note tells them. Saved outputs, other runtimes and plain callables do not show all of that;
a note then says what was not compared.

A difference within the noise floor is not called rounding where the candidate is farther from the float64 result than
the reference on every input: at four times as far, a proof is asked whether both are the same function; at 32 times,
without one, the answer is UNDECIDED.

Made by `python -m docs.make_compare` at commit `{name_commit()}`, with {versions},
Python {platform.python_version()}, {platform.machine()} ({torch.backends.cpu.get_cpu_capability()}), seed 0, one thread
for each comparison."""


_SEED = """\
In PyTorch #179574, compiled and eager outputs differ by 6e-6, on outputs up to 25, and the reporter suspects the
batching of four parallel linears. On the CPU,
`foldproof compare examples/parallel_linears.py:make --against inductor --verbose` prints:"""

_WRONG = """\
One program contains all of these operators; the first call of one of them is computed wrongly. *rms*, *worst*: in
sigmas. *found at*: the operator with the largest share of the difference."""

_POWER = """\
The same program; every number in the result of the operator's first call is off by 2^k units in its last place, up or
down at random. ROUNDING is right for small k: other kernels may round like that. `=` ROUNDING, `?` UNDECIDED, `R`
REFUTED and found at that operator, `r` REFUTED and found elsewhere."""

_DEPTH = """\
By depth: the first linear of a stack of residual blocks (layer_norm, linear, gelu, linear) is off by 2^k units."""

_CORRECT = """\
These pairs are correct, so a REFUTED would be a false alarm. *decomposed*: the exported program after
`run_decompositions()`, in PyTorch's own kernels; *aot_eager*: the same under `torch.compile`. *identical*: equal bit
for bit. *largest rms*, *largest worst*: the largest scores of a candidate, in sigmas."""


def _bugs(found: Iterable[Found]) -> str:
    lines = [
        [
            f.name,
            f.kind,
            f"{f.sigma:.2g}",
            f"{f.worst:.2g}",
            f"`{f.at}`",
            "yes" if f.at == BUGS[f.detail[0]].seen_at else "no",
        ]
        for f in found
    ]
    return _table(["kernel", "verdict", "rms", "worst", "found at", "right"], lines)


_SIGNS = {str(Kind.ROUNDING): "=", str(Kind.UNDECIDED): "?"}


def _power(found: Sequence[Found]) -> str:
    rows = []
    for operator in OPERATORS:
        signs = [_SIGNS.get(f.kind, "R" if f.at == f.name else "r") for f in found if f.name == operator]
        rows.append([f"`{operator}`", *signs])
    return _table(["operator \\ k", *map(str, SIZES)], rows)


def _depths(found: Sequence[Found]) -> str:
    rows = []
    for depth in DEPTHS:
        signs = [_SIGNS.get(f.kind, "R") for f in found if f.detail[0] == depth]
        rows.append([str(depth), *signs])
    return _table(["blocks \\ k", *map(str, SIZES)], rows)


_PAIRS = tuple(list(_RUN)[4:])


def _pairs(results: Sequence[Found]) -> str:
    rows = []
    for group in _PAIRS:
        found = [f for f in _of(results, group) if f.kind != "not run"]
        kinds = Counter(f.kind for f in found)
        rows.append(
            [
                group,
                str(len(found)),
                str(sum(f.identical for f in found)),
                *(str(kinds[str(k)]) for k in (Kind.ROUNDING, Kind.UNDECIDED, Kind.REFUTED)),
                f"{max((f.sigma for f in found), default=0):.2g}",
                f"{max((f.worst for f in found), default=0):.2g}",
            ]
        )
    head = ["pairs", "compared", "identical", "ROUNDING", "UNDECIDED", "REFUTED", "largest rms", "largest worst"]
    return _table(head, rows)


def _exceptions(results: Sequence[Found]) -> str:
    told = [
        f"- {f.group}, {f.name}: {f.kind}, {f.text.splitlines()[0].removeprefix(f.kind + ': ')}"
        for f in results
        if f.group in _PAIRS and f.kind != str(Kind.ROUNDING)
    ]
    return (
        "\n".join(["Pairs with another verdict, and programs that PyTorch could not run or decompose:", "", *told])
        if told
        else ""
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
