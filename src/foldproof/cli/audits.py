"""The work and the output of `foldproof audit` and `foldproof replay`."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foldproof.cli.summary import STYLES
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind

if TYPE_CHECKING:
    from foldproof.auditing import Audit, Step

Progress = Callable[[int, int | None, str], None]


def audit(spec: str, compiler: str, options: Sequence[str], disable: Sequence[str], progress: Progress) -> Audit:
    """Audit the program of ``spec``; raises FoldproofError if it can't be loaded, run or compiled."""
    import foldproof
    from foldproof.cli.work import working_on
    from foldproof.program.loading import load_spec

    given = dict(_option(text) for text in options)
    progress(0, None, f"loading {spec}")
    loaded = load_spec(spec)
    with working_on(spec):
        return foldproof.audit(
            loaded.program,
            loaded.require_inputs(),
            loaded.kwargs,
            compiler=compiler,
            options=given,
            disable=disable,
            progress=progress,
        )


def document(found: Audit, folder: Path | None) -> dict[str, Any]:
    """The JSON form of an audit, with graphs; ``folder`` is the one it was saved to."""
    from foldproof.auditing.document import build_audit_document

    return build_audit_document(found, folder)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise FoldproofError(f"--option takes NAME=VALUE, not {text!r}")
    if value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


_WORDS = {"true": True, "false": False, "none": None}
"""Spellings in a shell: "false" as a text would be true."""


NAMED = 4
"""Largest number of named passes that changed nothing or stay within bounds; JSON and pages name all."""


def print_audit(out: Console, found: Audit, saving: float | None = None) -> None:
    """Print a row for each pass that changed a graph, the end-to-end comparison, and the conclusion.

    ``saving`` is the time it took to save the audit, in seconds.
    """
    fired = [step for step in found.steps if step.fired]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("pass", "nodes", "verdict", "time"):
        table.add_column(name, overflow="fold", justify="right" if name in ("nodes", "time") else "left")
    for step in fired:
        before, after = step.nodes
        verdict = Text(step.verdict.kind.value, STYLES[step.verdict.kind])
        table.add_row(Text(step.name), f"{before} → {after}", verdict, f"{step.verdict.seconds:.2f} s")
    out.print(table if fired else "no pass changed a graph")
    others = Counter(step.name for step in found.steps if not step.fired)
    if others:
        told = [name if n == 1 else f"{name} ({n} times)" for name, n in others.most_common()]
        told = [*told[:NAMED], "…"] if len(told) > NAMED else told
        calls = f"{others.total()} more call{'s' * (others.total() > 1)} of passes changed nothing"
        out.print(Text(f"{calls}: {', '.join(told)}"), soft_wrap=True)
    _print_bounds(out, [step for step in fired if step.verdict.steps])
    out.print()
    for step in found.refuted[:1]:
        out.print(Text(f"{step.name}: {step.verdict}"), soft_wrap=True)
    for step in found.undecided:
        out.print(Text(f"{step.name}: UNDECIDED: {step.verdict.reason}"), soft_wrap=True)
    whole = found.end_to_end
    if whole is not None:
        if found.refuted and not whole.sources:
            whole = replace(whole, found="")  # it says why no operator was found, but the pass is the cause
        out.print(Text(f"end to end, {found.compiled} against the model: {whole}"), soft_wrap=True)
    else:
        out.print(Text(f"end to end, nothing is compared: {found.uncompared}"), soft_wrap=True)
    if found.stages:
        from foldproof.auditing.stages import tell_stages

        out.print(Text(tell_stages(found.stages)), soft_wrap=True)
    saved = "" if saving is None else f", saved in {saving:.1f} s"
    out.print(f"compiled in {found.compile_seconds:.1f} s, audited in {found.seconds:.1f} s{saved}\n")
    out.print(Text(found.conclusion, STYLES[found.kind]), soft_wrap=True)


def _print_bounds(out: Console, within: Sequence[Step]) -> None:
    """Print the largest bound of each step that approximates on purpose."""
    for step in within[:NAMED]:
        largest = max(step.verdict.steps, key=lambda one: one.bound)
        out.print(Text(f"{step.name}: within {largest.bound:.3g}: {largest.name}"), soft_wrap=True)
    if len(within) > NAMED:
        out.print(f"… and {len(within) - NAMED} more within bounds")


def replay(folder: Path) -> tuple[Kind, str]:
    """Run a saved reproduction again; the kind is REFUTED if it is still wrong, and the sentence says so."""
    from foldproof.auditing.folder import replay as run_again

    wrong, told = run_again(folder)
    return (Kind.REFUTED if wrong else Kind.ROUNDING), told
