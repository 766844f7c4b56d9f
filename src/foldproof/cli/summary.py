"""Results on the terminal: the conclusion first, then changes and declined folds."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from foldproof.cli.options import SETTINGS
from foldproof.cli.text import print_table, say
from foldproof.formatting import format_bytes, format_count
from foldproof.verdict import Kind, Verdict

if TYPE_CHECKING:
    from foldproof import CompareResult, FoldQATResult, FuseResult
    from foldproof.fusion import Declined

ROWS = 10
"""Maximum number of rows of a table; ``--json`` has all of them."""
NAMED = 4
"""Maximum number of names in a row that stands for several operators or passes."""

STYLES = {
    Kind.PROVED: "green",
    Kind.PROVED_WITHIN: "green",
    Kind.ROUNDING: "cyan",
    Kind.REFUTED: "bold red",
    Kind.UNDECIDED: "yellow",
}


def print_conclusion(out: Console, text: str, kind: Kind) -> None:
    """Print a text that begins with a verdict, in the colour of its kind; its first line alone if ``--quiet``."""
    told = Text(text.partition("\n")[0] if SETTINGS.get().quiet else text)
    told.highlight_words([kind.value], STYLES[kind])
    say(out, told)


def print_verdict(out: Console, verdict: Verdict) -> None:
    """Print a verdict, with all evidence if ``--verbose``."""
    print_conclusion(out, str(verdict) if SETTINGS.get().verbose else verdict.summary, verdict.kind)


def print_fuse(out: Console, result: FuseResult) -> None:
    """Print the result of `foldproof.fuse`: the verdict, rewrites, declined folds with reasons, and operators."""
    print_verdict(out, result.verdict)
    if SETTINGS.get().quiet:
        return
    out.print()
    _print_rewrites(out, result)
    _print_declined(out, result.declined)
    if result.declined and any("quantized_decomposed" in name for name in result.operators_after):
        say(out, "the program is quantized; `foldproof fold-qat` folds the chains of quantization-aware training\n")
    _print_operators(out, Counter(result.operators_before), Counter(result.operators_after))
    sizes = f"{format_bytes(result.bytes_before)} → {format_bytes(result.bytes_after)}"
    say(out, f"constants {sizes}, fused in {result.seconds:.1f} s")


def print_fold_qat(out: Console, result: FoldQATResult) -> None:
    """Print the result of `foldproof.fold_qat`: the verdict, chain and bias of each operator, and declined folds."""
    print_verdict(out, result.verdict)
    if SETTINGS.get().quiet:
        return
    out.print()
    if result.folded:
        chains = sum(bool(one.chain) for one in result.folded)
        biases = len(result.folded) - chains
        parts = [f"{format_count(chains, 'operator')} folded"] * bool(chains)
        parts += [f"{format_count(biases, 'bias', 'biases')} quantized, without a chain"] * bool(biases)
        say(out, ", ".join(parts))
        rows = [
            (
                one.node,
                str(len(one.chain)) if one.chain else "none",
                "unchanged" if one.exact else "scaled",
                f"{one.bias.bound:.2g}",
                f"{result.share(one):.1g}",
                _place(one.source),
            )
            for one in result.folded[:ROWS]
        ]
        print_table(out, ("operator", "chain", "weight", "bias within", "of the range", "source"), rows)
        _print_rest(out, len(result.folded))
    else:
        say(out, "nothing to fold\n")
    _print_declined(out, result.declined)


def print_explanations(out: Console, declined: Sequence[Declined]) -> None:
    """Print places, the reason and the remedy of the normalisations that can't be folded; equal reasons once."""
    from foldproof.rewriting.account import group_declined, tell_reason

    if not declined:
        say(out, "every normalisation can be folded")
        return
    say(out, f"{format_count(len(declined), 'operator')} not folded")
    if SETTINGS.get().quiet:
        return
    for several in group_declined(declined):
        out.print()
        for one in several[:ROWS]:
            title = Text(f"{one.node} ({one.operator})", "bold")
            say(out, title.append(f"  {_place(one.source)}", "not bold cyan"))
        if len(several) > ROWS:
            say(out, f"… and {len(several) - ROWS} more, {len(several)} in all; --json lists them")
        say(out, f"  {tell_reason(several)}")
        if several[0].hint:
            say(out, f"  remedy: {several[0].hint}")


def print_comparison(out: Console, result: CompareResult) -> None:
    """Print the result of `foldproof.compare`; all evidence if ``--verbose``."""
    settings = SETTINGS.get()
    if settings.quiet:
        for warning in result.warnings:
            say(out, warning)
        print_verdict(out, result.verdict)
        return
    print_conclusion(out, str(result) if settings.verbose else result.summary, result.kind)
    if not settings.verbose and not result.identical:
        notes = len(result.verdict.notes)
        told = f", with {format_count(notes, 'note')}" if notes else ""
        say(out, f"  (--verbose prints the evidence{told})", "dim")


def print_ending(out: Console, saved: Path | None, written: Sequence[Path], seconds: float) -> None:
    """Print the written files; ``saved`` is None if the program was refuted and not saved."""
    if saved is None:
        say(out, "The program was not saved, because it is refuted.", "bold red")
    elif not SETTINGS.get().quiet:
        say(out, f"saved {saved} ({format_bytes(saved.stat().st_size)}), {seconds:.1f} s in all")
    print_written(out, written)


def print_answers(out: Console, answers: Sequence[tuple[str, Kind | None]], folder: Path) -> None:
    """Print a line for each of several audits, by its verdict if there is one, and the place of the results."""
    for told, kind in answers:
        say(out, told, STYLES[kind] if kind else "")
    say(out, f"the results are in {folder}")


def print_written(out: Console, written: Sequence[Path]) -> None:
    """Print the names of the written files and folders."""
    if not SETTINGS.get().quiet:
        for path in written:
            say(out, f"wrote {path}")


def list_some(names: Iterable[str]) -> str:
    """Join a few names, each with the number of its occurrences; "…" stands for the others."""
    counted = Counter(names).most_common()
    told = [name if n == 1 else f"{name} ({n} times)" for name, n in counted[:NAMED]]
    return ", ".join([*told, "…"] if len(counted) > NAMED else told)


def _list_with_number(names: Sequence[str]) -> str:
    return list_some(names) if len(names) <= NAMED else f"{len(names)} × {list_some(names)}"


def _print_operators(out: Console, before: Counter[str], after: Counter[str]) -> None:
    rows = [(n, str(before[n]), str(after[n])) for n in sorted(before | after) if before[n] != after[n]]
    rows.append(("all operators", str(before.total()), str(after.total())))
    print_table(out, ("operator", "before", "after"), rows, right=("before", "after"))
    out.print()


def _print_rewrites(out: Console, result: FuseResult) -> None:
    if not result.rewrites:
        say(out, "no rewrites\n")
        return
    kinds = Counter(rewrite.verdict.kind for rewrite in result.rewrites)
    saved = sum(rewrite.saving.bytes for rewrite in result.rewrites)
    operators = sum(rewrite.saving.operators for rewrite in result.rewrites)
    say(out, f"{format_count(len(result.rewrites), 'rewrite')}: {_kinds(kinds)}")
    say(
        out,
        f"they save {format_count(operators, 'operator call')} and {format_bytes(saved)} of activations at each call",
    )
    # Rewrites that are not PROVED come first, so that a shortened table never hides them.
    order = sorted(result.rewrites, key=lambda rewrite: rewrite.verdict.kind is Kind.PROVED)
    rows = [
        (
            Text(rewrite.verdict.kind.value, STYLES[rewrite.verdict.kind]),
            f"{rewrite.reported}: {rewrite.rule}" + (f" ({rewrite.speed})" if rewrite.speed else ""),
            " ".join(dict.fromkeys(rewrite.through)),
            rewrite.result,
            f"×{rewrite.accuracy.ratio:.2g}" if rewrite.accuracy else "",
            _place(rewrite.source),
        )
        for rewrite in order[:ROWS]
    ]
    print_table(out, ("verdict", "rule", "through", "into", "error", "source"), rows)
    rest = order[ROWS:]
    if rest:
        say(out, f"… and {len(rest)} more: {_kinds(Counter(rewrite.verdict.kind for rewrite in rest))}")
    if any(rewrite.accuracy for rewrite in order[:ROWS]):
        say(out, "error: the distance to the float64 result after the rewrite, over that before", "dim")
    out.print()


def _print_declined(out: Console, declined: Sequence[Declined]) -> None:
    from foldproof.rewriting.account import group_declined, tell_reason

    if not declined:
        say(out, "nothing declined\n")
        return
    say(out, f"{len(declined)} declined")
    groups = group_declined(declined)
    rows = [
        (
            _list_with_number([one.node for one in several]),
            list_some({one.operator for one in several}),
            tell_reason(several),
            list_some(sorted({_place(one.source) for one in several})),
        )
        for several in groups[:ROWS]
    ]
    print_table(out, ("node", "operator", "why", "source"), rows)
    _print_rest(out, len(groups))
    out.print()


def _print_rest(out: Console, count: int) -> None:
    if count > ROWS:
        say(out, f"… and {count - ROWS} more; --json lists them all")


def _place(source: str | None) -> str:
    """A source line, with its file relative to the folder of sys.path that contains it."""
    if source is None:
        return ""
    for folder in sorted(sys.path, key=len, reverse=True):
        if folder and source.startswith(folder + os.sep):
            return source[len(folder) + 1 :]
    return source


def _kinds(kinds: Counter[Kind]) -> str:
    return ", ".join(f"{count} {kind.value}" for kind, count in kinds.items())
