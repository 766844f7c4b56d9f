"""Text on a terminal: lines that wrap at words, and tables that break none."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foldproof.cli.options import SETTINGS, Color

WIDTH = 120
"""Columns of a table in a file or pipe, unless COLUMNS is set."""
GAP = 3
"""Columns between two columns of a table."""

Cell = str | Text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Continue silently: rich would exit with status 1, which means REFUTED here."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(stderr: bool = False) -> Console:
    """A console on stdout, or stderr, with colours as ``--color`` says."""
    color = SETTINGS.get().color
    out = _Console(
        highlight=False,
        markup=False,
        emoji=False,
        stderr=stderr,
        force_terminal=True if color is Color.always else None,
        color_system=None if color is Color.never else "auto",
    )
    if not out.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        out.width = WIDTH
    return out


def say(out: Console, text: Cell, style: str = "") -> None:
    """Print lines. On a terminal, long ones wrap at words, indented a little more; elsewhere they stay whole."""
    whole = Text(text) if isinstance(text, str) else text
    whole.stylize(style)
    for line in whole.split("\n", allow_blank=True):
        if not out.is_terminal or line.cell_len <= out.width:
            out.print(line, soft_wrap=True)
            continue
        margin = len(line.plain) - len(line.plain.lstrip())
        words = line[margin:]
        for i, part in enumerate(words.wrap(out, max(out.width - margin - 2, 1))):
            part.rstrip()
            out.print(Text(" " * (margin + 2 * bool(i))).append_text(part), soft_wrap=True)


def print_table(
    out: Console, columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[str] = ()
) -> None:
    """Print a table, without columns that are empty in every row; those in ``right`` are aligned to the right.

    If it does not fit without breaking a word, each row is printed as lines instead.
    """
    kept = [i for i in range(len(columns)) if any(map(str, (row[i] for row in rows)))]
    names = [columns[i] for i in kept]
    cells = [[_text(row[i]) for i in kept] for row in rows]
    columns_of = [(Text(name), *column) for name, column in zip(names, zip(*cells))]
    least = [max(map(_longest_word, column)) for column in columns_of]
    room = out.width - GAP * (len(names) - 1)
    if sum(least) > room:
        for row in cells:
            say(out, row[0])
            for name, cell in zip(names[1:], row[1:]):
                if cell.plain:
                    say(out, Text(f"  {name}: ").append_text(cell))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    widths = [max(text.cell_len for text in column) for column in columns_of]
    while sum(widths) > room:  # the widest that can give way does
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=widths.__getitem__)
        widths[widest] -= 1
    for name, width in zip(names, widths):
        table.add_column(name, overflow="fold", width=width, justify="right" if name in right else "left")
    for row in cells:
        table.add_row(*row)
    out.print(table)


def _text(cell: Cell) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _longest_word(text: Text) -> int:
    return max((Text(word).cell_len for word in text.plain.split()), default=0)
