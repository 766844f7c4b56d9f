"""Writes docs/self_proof.md. Run by ``make docs``; by hand: ``python -m docs.make_self_proof`` (an hour).

``python -m docs.make_self_proof forward`` writes the part on forward passes alone (ten minutes), and ``python -m
docs.make_self_proof gradients [MODEL ...]`` that on gradients, of all models or of these.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

import foldproof
from docs.writing import write_whole
from foldproof.verdict import Difference, Kind, Verdict
from zoo import ZOO
from zoo.commit import name_commit
from zoo.findings import FINDINGS, Finding
from zoo.gradients import GradientProof, prove_gradients
from zoo.self_proof import SelfProof, prove_itself, refute_spoilt

PAGE = Path(__file__).with_name("self_proof.md")
WORKERS = os.cpu_count() or 1


GRADIENTS = "## Gradients"


def main(part: str = "", *names: str) -> None:
    """Prove the zoo, then write the page in one go; with a ``part``, keep the other as it is."""
    forward, _, backward = PAGE.read_text("utf-8").partition(GRADIENTS)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        if part != "gradients":
            rows = []
            for made in pool.map(row, ZOO):
                rows.append(made)
                sys.stderr.write(f"{len(rows)}/{len(ZOO)} {made.proof.name}: {made.proof.decomposed.kind}\n")
            forward = page(rows)
        if part != "forward":
            proofs = []
            for found in pool.map(gradient_row, names or ZOO):
                proofs.append(found)
                told = f"{found.joint.kind}, {found.decomposed.kind}"
                sys.stderr.write(f"{len(proofs)} {found.name}, gradients: {told}\n")
            backward = gradients(proofs).removeprefix(GRADIENTS)
    write_whole(PAGE, f"{forward.rstrip()}\n\n{GRADIENTS}{backward.rstrip()}\n")


@dataclass(frozen=True)
class Row:
    """The results of one model."""

    proof: SelfProof
    spoilt: Verdict


def row(name: str) -> Row:
    """Prove one model, and refute its spoilt program."""
    return Row(prove_itself(ZOO[name]), refute_spoilt(ZOO[name]))


def gradient_row(name: str) -> GradientProof:
    """Prove the gradients of one model."""
    return prove_gradients(ZOO[name])


def page(rows: Sequence[Row]) -> str:
    """The page as Markdown, but for the gradients."""
    results = [r.proof for r in rows]
    return "\n\n".join(
        [
            _introduction(results),
            "## Totals",
            _totals(rows),
            "## Each model",
            _LEGEND,
            _models(rows),
            "## Pairs that are not proved",
            _reasons(results),
            "## Assumptions of the proofs",
            "An uninterpreted operator stands for any function. A branching operator is followed only on the branch"
            " that these inputs take. Everything else is exact arithmetic.",
            _assumptions(results),
            "## Defects of PyTorch found in this way",
            *(_finding(finding) for finding in FINDINGS),
        ]
    )


def _introduction(results: Sequence[SelfProof]) -> str:
    versions = f"torch {torch.__version__}, transformers {version('transformers')}, foldproof {foldproof.__version__}"
    return f"""\
# PyTorch proves itself

<!-- Written by docs/make_self_proof.py: run `make docs`, don't edit. -->

`torch.export` turns a model into a program, and `run_decompositions()` turns that into a program of core operators:
convolutions lose their variants, a linear becomes permute and addmm, attention becomes two matrix products and a
softmax. These rewrites come from PyTorch, so they are a fair test of translation validation: {len(results)}
architectures, small and with random weights, are exported and decomposed by PyTorch, and foldproof checks each pair of
programs for equivalence.

As a control, the last comparison replaces the first value x computed from the program's input by x + x². It must be
REFUTED, or the other proofs are worth nothing.

Made by `python -m docs.make_self_proof forward` at commit `{name_commit()}` with {versions},
Python {platform.python_version()}, seed 0, {WORKERS} models at a time with one thread each; times are wall-clock times
of that run."""


def _totals(rows: Sequence[Row]) -> str:
    questions = {
        "exported program = its decomposition": [r.proof.decomposed for r in rows],
        "model = exported program": [r.proof.exported for r in rows],
        "exported program = the same, spoilt": [r.spoilt for r in rows],
    }
    lines = [[question, *_counts(verdicts)] for question, verdicts in questions.items()]
    return _table(["question", *map(str, Kind), "seconds"], lines)


_LEGEND = """\
*operators*: calls in the exported program → in its decomposition. *k*: primes carried jointly; *degree*: the largest
degree of a compared polynomial; *uninterpreted*: evaluations of uninterpreted functions; *error*: log2 of the bound on
the probability that this PROVED is wrong. *moved*: the change by other inputs of the output that changes least
(relative, root mean squares), which shows that comparing outputs means something. Every PROVED is for all inputs and
all parameters of the given shapes; integer inputs (tokens) are held at their values."""


def _models(rows: Sequence[Row]) -> str:
    head = [
        "model",
        "family",
        "operators",
        "program = decomposition",
        "k",
        "degree",
        "uninterpreted",
        "error",
        "seconds",
    ]
    head += ["model = program", "seconds", "spoilt", "moved"]
    lines = []
    for r, spoilt in ((x.proof, x.spoilt) for x in rows):
        proof = r.decomposed.proof
        evidence = ["", "", "", ""]
        if proof is not None:
            evidence = [str(proof.k), str(proof.degree), f"{proof.evaluations:,}", f"{proof.log2_error:.1f}"]
        before, after = r.operators
        line = [r.name, str(r.family), f"{before} → {'—' if after is None else after}"]
        line += [str(r.decomposed.kind), *evidence, f"{r.decomposed.seconds:.1f}"]
        line += [str(r.exported.kind), f"{r.exported.seconds:.1f}", str(spoilt.kind), f"{r.sensitivity:.2g}"]
        lines.append(line)
    return _table(head, lines)


def _reasons(results: Sequence[SelfProof]) -> str:
    told = []
    for r in results:
        for question, verdict in (("decomposition", r.decomposed), ("export", r.exported)):
            if verdict.proof is None:
                rest = f" With `run_decompositions({{}})`: {r.functional.kind}." if r.functional is not None else ""
                told.append(f"- **{r.name}**, {question}: {verdict.kind}, {_reason(verdict)}.{rest}")
    return "\n".join(told) or "Everything is proved."


def _reason(verdict: Verdict) -> str:
    at = verdict.difference
    return verdict.reason.rstrip(".") + (f", at `{at.node}` (`{at.operator}`)" if isinstance(at, Difference) else "")


def _assumptions(results: Sequence[SelfProof]) -> str:
    rows = []
    for r in results:
        proof = (r.decomposed if r.decomposed.proof is not None else r.exported).proof
        if proof is not None:
            rows.append([r.name, _names(proof.uninterpreted), _names(proof.branching)])
    return _table(["model", "uninterpreted", "branching"], rows)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def gradients(proofs: Sequence[GradientProof]) -> str:
    """The part of the page on gradients."""
    questions = {
        "autograd = joint graph": [p.joint for p in proofs],
        "autograd = joint graph of core operators": [p.decomposed for p in proofs],
    }
    totals = [[q, *_counts(verdicts)] for q, verdicts in questions.items()]
    rows, reasons = [], []
    for p in proofs:
        row = [p.name]
        for count, verdict in zip(p.operators, (p.joint, p.decomposed)):
            choices = _names(verdict.claim.choices) if verdict.proof is not None and verdict.claim is not None else ""
            row += ["—" if count is None else str(count), str(verdict.kind), f"{verdict.seconds:.1f}", choices]
        rows.append(row)
        told = {_reason(v): v.kind for v in (p.joint, p.decomposed) if v.proof is None}
        reasons += [f"- **{p.name}**: {kind}, {reason}." for reason, kind in told.items()]
    head = ["model", *["operators", "autograd = joint graph", "seconds", "choices"]]
    head += ["operators", "= of core operators", "seconds", "choices"]
    return "\n\n".join(
        [
            GRADIENTS,
            f"AOTAutograd traces a model and its backward into one joint graph, which `torch.compile` starts from. Of"
            f" {len(proofs)} of the {len(ZOO)} architectures, in training mode, the sum of all outputs times one"
            " tensor for each is differentiated: by autograd, and by the joint graph, as traced and with core operators"
            " alone. Running statistics, the sum, and gradients of all parameters are compared. The claim is for all"
            " inputs, parameters and cotangents, and for all states of the random generator. *choices* names the"
            " operators whose choices limit it. Dropouts have a probability of 1/2."
            f" Made by `python -m docs.make_self_proof gradients` at commit `{name_commit()}`.",
            _table(["question", *map(str, Kind), "seconds"], totals),
            _table(head, rows),
            "\n".join(reasons) or "Everything is proved.",
            _CORE_OPERATORS,
        ]
    )


_CORE_OPERATORS = """\
Core operators are those of `torch.export.default_decompositions`, but for attention on CPUs, which stays one operator:
the program in its place returns its weights as the logsumexp of the scores, which its backward then reads
(`tests/training/test_joint_graphs.py`), so that the joint graph with it is wrong. Layers are not dropped and spectra
not masked at random, which models do in Python. A model without a graph decides by the value of a tensor."""


def _counts(verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counter(v.kind for v in verdicts)
    return [*(str(counts[kind]) for kind in Kind), f"{sum(v.seconds for v in verdicts):.0f}"]


def _finding(finding: Finding) -> str:
    raised = finding.reproduce()
    message = str(raised).splitlines()[0]
    return f"""\
### {finding.title}

{finding.explanation} Seen in {_names(finding.models)}; reported in {", ".join(f"<{url}>" for url in finding.reports)}.

```python
{finding.program.rstrip()}  # {type(raised).__name__}: {message}
```"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
