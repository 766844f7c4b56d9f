"""Results on the terminal: changes, evidence, and declined folds."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foldproof.formatting import format_bytes, format_count
from foldproof.verdict import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from foldproof import CompareResult, FoldQATResult, FuseResult
    from foldproof.fusion import Declined

ROWS = 10
"""Maximum number of rows of a table; ``--json`` has all of them."""

STYLES = {
    Kind.PROVED: "green",
    Kind.PROVED_WITHIN: "green",
    Kind.ROUNDING: "cyan",
    Kind.REFUTED: "bold red",
    Kind.UNDECIDED: "yellow",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Continue silently: rich would exit with status 1, which means REFUTED here."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False) -> Console:
    """A console on stdout, or stderr; a file or pipe gets plain lines of 120 columns."""
    out = _Console(highlight=False, markup=False, stderr=stderr)
    return out if out.is_terminal else _Console(highlight=False, markup=False, width=120, stderr=stderr)


def print_fuse(out: Console, result: FuseResult) -> None:
    """Print the result of `foldproof.fuse`: operators, rewrites, declined folds with reasons, and the verdict."""
    _print_operators(out, Counter(result.operators_before), Counter(result.operators_after))
    _print_rewrites(out, result)
    _print_declined(out, result.declined)
    if result.declined and any("quantized_decomposed" in name for name in result.operators_after):
        out.print("the program is quantized; `foldproof fold-qat` folds the chains of quantization-aware training\n")
    print_verdict(out, result.verdict)
    sizes = f"{format_bytes(result.bytes_before)} → {format_bytes(result.bytes_after)}"
    out.print(f"constants {sizes}, fused in {result.seconds:.1f} s")


def print_fold_qat(out: Console, result: FoldQATResult) -> None:
    """Print the result of `foldproof.fold_qat`: chain and bias of each operator, declined folds, and the verdict."""
    if result.folded:
        chains = sum(bool(one.chain) for one in result.folded)
        biases = len(result.folded) - chains
        parts = [f"{format_count(chains, 'operator')} folded"] * bool(chains)
        parts += [f"{format_count(biases, 'bias', 'biases')} quantized, without a chain"] * bool(biases)
        out.print(", ".join(parts))
        table = _table("operator", "chain", "weight", "bias within", "of the range", "source")
        for one in result.folded[:ROWS]:
            weight = "unchanged" if one.exact else "scaled"
            bounds = f"{one.bias.bound:.2g}", f"{result.share(one):.1g}"
            table.add_row(
                Text(one.node), str(len(one.chain)) if one.chain else "none", weight, *bounds, Text(_place(one.source))
            )
        out.print(table)
        if len(result.folded) > ROWS:
            out.print(f"… and {len(result.folded) - ROWS} more; --json lists them all")
        out.print()
    else:
        out.print("nothing to fold\n")
    _print_declined(out, result.declined)
    print_verdict(out, result.verdict)


def print_verdict(out: Console, verdict: Verdict) -> None:
    """Print a verdict, with its kind in colour."""
    text = Text(str(verdict))
    text.stylize(STYLES[verdict.kind], 0, len(verdict.kind.value))
    out.print(text, soft_wrap=True)


def print_explanations(out: Console, declined: Sequence[Declined]) -> None:
    """Print the place, the reason and the remedy of each normalisation that can't be folded."""
    if not declined:
        out.print("every normalisation can be folded")
        return
    out.print(f"{format_count(len(declined), 'operator')} not folded\n")
    for one in declined:
        title = Text(f"{one.node} ({one.operator})", "bold")
        out.print(title.append(f"  {_place(one.source)}", "not bold cyan"), soft_wrap=True)
        out.print(f"  {one.reason}", soft_wrap=True)
        if one.hint:
            out.print(f"  remedy: {one.hint}", soft_wrap=True)


def print_comparison(out: Console, result: CompareResult, verbose: bool) -> None:
    """Print the result of `foldproof.compare`, with the verdict's kind in colour; all evidence if ``verbose``."""
    text = Text(str(result) if verbose else result.summary)
    text.highlight_words([result.kind.value], STYLES[result.verdict.kind])
    out.print(text, soft_wrap=True)
    if not verbose and not result.identical:
        notes = len(result.verdict.notes)
        told = f", with {format_count(notes, 'note')}" if notes else ""
        out.print(Text(f"  (--verbose prints the evidence{told})", "dim"), soft_wrap=True)


def print_ending(out: Console, saved: Path | None, written: Sequence[Path], seconds: float) -> None:
    """Print the written files; ``saved`` is None if the program was refuted and not saved."""
    if saved is None:
        out.print("The program was not saved, because it is refuted.", style="bold red")
    else:
        out.print(f"saved {saved} ({format_bytes(saved.stat().st_size)}), {seconds:.1f} s in all")
    print_written(out, written)


def print_answers(out: Console, answers: Sequence[tuple[str, Kind | None]], folder: Path) -> None:
    """Print a line for each of several audits, by its verdict if there is one, and the place of the results."""
    for told, kind in answers:
        out.print(Text(told, STYLES[kind] if kind else ""), soft_wrap=True)
    out.print(f"the results are in {folder}", soft_wrap=True)


def print_written(out: Console, written: Sequence[Path]) -> None:
    """Print the names of the written files and folders."""
    for path in written:
        out.print(f"wrote {path}")


def _print_operators(out: Console, before: Counter[str], after: Counter[str]) -> None:
    table = _table("operator", "before", "after")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in sorted(before | after):
        if before[name] != after[name]:
            table.add_row(name, str(before[name]), str(after[name]))
    table.add_row("all operators", str(before.total()), str(after.total()))
    out.print(table, "")


def _print_rewrites(out: Console, result: FuseResult) -> None:
    if not result.rewrites:
        out.print("no rewrites\n")
        return
    kinds = Counter(rewrite.verdict.kind for rewrite in result.rewrites)
    out.print(f"{format_count(len(result.rewrites), 'rewrite')}: {_kinds(kinds)}")
    # Rewrites that are not PROVED come first, so that a shortened table never hides them.
    order = sorted(result.rewrites, key=lambda rewrite: rewrite.verdict.kind is Kind.PROVED)
    saved = sum(rewrite.saving.bytes for rewrite in result.rewrites)
    operators = sum(rewrite.saving.operators for rewrite in result.rewrites)
    out.print(
        f"they save {format_count(operators, 'operator call')} and {format_bytes(saved)} of activations at each call"
    )
    table = _table("verdict", "rule", "through", "into", "error", "source")
    for rewrite in order[:ROWS]:
        kind = rewrite.verdict.kind
        table.add_row(
            Text(kind.value, STYLES[kind]),
            Text(f"{rewrite.reported}: {rewrite.rule}" + (f" ({rewrite.speed})" if rewrite.speed else "")),
            Text(" ".join(dict.fromkeys(rewrite.through))),
            Text(rewrite.result),
            f"×{rewrite.accuracy.ratio:.2g}" if rewrite.accuracy else "",
            Text(_place(rewrite.source)),
        )
    out.print(table)
    rest = order[ROWS:]
    if rest:
        out.print(f"… and {len(rest)} more: {_kinds(Counter(rewrite.verdict.kind for rewrite in rest))}")
    out.print()


def _print_declined(out: Console, declined: Sequence[Declined]) -> None:
    if not declined:
        out.print("nothing declined\n")
        return
    out.print(f"{len(declined)} declined")
    table = _table("node", "operator", "why", "source")
    for one in declined[:ROWS]:
        table.add_row(Text(one.node), Text(one.operator), Text(one.reason), Text(_place(one.source)))
    out.print(table)
    if len(declined) > ROWS:
        out.print(f"… and {len(declined) - ROWS} more; --json lists them all")
    out.print()


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


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
