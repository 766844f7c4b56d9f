"""The work and the output of `foldproof audit` and `foldproof replay`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from foldproof.cli.options import SETTINGS
from foldproof.cli.setup import Setup
from foldproof.cli.summary import STYLES, list_some
from foldproof.cli.text import print_table, say
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind

if TYPE_CHECKING:
    from foldproof.auditing import Audit, Step

Progress = Callable[[int, int | None, str], None]


def audit(spec: str, setup: Setup, progress: Progress) -> Audit:
    """Audit the program of ``spec``; raises FoldproofError if it can't be loaded, run or compiled."""
    import foldproof
    from foldproof.cli.work import load, working_on
    from foldproof.program.loading import load_function

    given = read_options(setup.options)
    progress(0, None, f"loading {spec}")
    loaded = load(spec)
    optimizer = None if setup.optimizer is None else load_function(setup.optimizer)
    with working_on(spec):
        return foldproof.audit(
            loaded.program,
            loaded.require_inputs(),
            loaded.kwargs,
            compiler=setup.compiler,
            options=given,
            disable=setup.disable,
            training=setup.training,
            optimizer=optimizer,
            progress=progress,
        )


def document(found: Audit, folder: Path | None) -> dict[str, Any]:
    """The JSON form of an audit, with graphs; ``folder`` is the one it was saved to."""
    from foldproof.auditing.document import build_audit_document

    return build_audit_document(found, folder)


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read the values of ``--option NAME=VALUE``; raises FoldproofError for another form."""
    return dict(_option(text) for text in texts)


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


BOUNDS = 4
"""Largest number of steps whose bounds are printed; JSON and pages have all."""


def print_audit(out: Console, found: Audit, saving: float | None = None) -> None:
    """Print the conclusion, a row for each pass that changed a graph, and the end-to-end comparison.

    ``saving`` is the time it took to save the audit, in seconds.
    """
    settings = SETTINGS.get()
    say(out, found.conclusion, STYLES[found.kind])
    if settings.quiet:
        return
    out.print()
    for step in found.refuted[:1]:
        say(out, f"{step.title}: {step.verdict if settings.verbose else step.verdict.summary}\n")
    undecided = defaultdict(list)
    for step in found.undecided:
        undecided[step.verdict.reason].append(step.title)
    for reason, names in undecided.items():
        say(out, f"{list_some(names)}: UNDECIDED: {reason}")
    if undecided:
        out.print()
    fired = [step for step in found.steps if step.fired]
    rows = [
        (
            step.title,
            " → ".join(map(str, step.nodes)),
            Text(step.verdict.kind.value, STYLES[step.verdict.kind]),
            f"{step.verdict.seconds:.2f} s",
        )
        for step in fired
    ]
    if rows:
        print_table(out, ("pass", "nodes", "verdict", "time"), rows, right=("nodes", "time"))
    else:
        say(out, "no pass changed a graph")
    others = [step.name for step in found.steps if not step.fired]
    if others:
        calls = f"{len(others)} more call{'s' * (len(others) > 1)} of passes changed nothing"
        say(out, f"{calls}: {list_some(others)}")
    _print_bounds(out, [step for step in fired if step.verdict.steps])
    out.print()
    whole = found.end_to_end
    if whole is not None:
        if found.refuted and not whole.sources:
            whole = replace(whole, found="")  # it says why no operator was found, but the pass is the cause
        for warning in whole.warnings:
            say(out, warning)
        whole = replace(whole, training="")  # it is told
        told = str(whole) if settings.verbose else whole.summary
        say(out, f"end to end, {found.compiled} against the model: {told}")
    else:
        say(out, f"end to end, nothing is compared: {found.uncompared}")
    if found.stages:
        from foldproof.auditing.stages import tell_stages

        say(out, tell_stages(found.stages))
    saved = "" if saving is None else f", saved in {saving:.1f} s"
    say(out, f"compiled in {found.compile_seconds:.1f} s, audited in {found.seconds:.1f} s{saved}")


def _print_bounds(out: Console, within: Sequence[Step]) -> None:
    """Print the largest bound of each step that approximates on purpose."""
    for step in within[:BOUNDS]:
        largest = max(step.verdict.steps, key=lambda one: one.bound)
        say(out, f"{step.title}: within {largest.bound:.3g}: {largest.name}")
    if len(within) > BOUNDS:
        say(out, f"… and {len(within) - BOUNDS} more within bounds")


def replay(folder: Path) -> tuple[Kind, str]:
    """Run a saved reproduction again; the kind is REFUTED if it is still wrong, and the sentence says so."""
    from foldproof.auditing.folder import replay as run_again

    wrong, told = run_again(folder)
    return (Kind.REFUTED if wrong else Kind.ROUNDING), told
