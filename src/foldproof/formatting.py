"""Numbers and results as text for people, on a terminal, on a page and in a notebook."""

from __future__ import annotations

import html

SYMBOLS = {"PROVED": "✓", "PROVED_WITHIN": "≈", "ROUNDING": "∿", "REFUTED": "✗", "UNDECIDED": "?"}
"""Symbols of the verdicts, so that colour is not the only difference."""

EDGES = {
    "PROVED": "#009e73",
    "PROVED_WITHIN": "#009e73",
    "ROUNDING": "#0072b2",
    "REFUTED": "#d55e00",
    "UNDECIDED": "#e69f00",
}
"""Colours of the verdicts where the background is not known (Okabe and Ito)."""


def format_count(number: int, what: str, several: str = "") -> str:
    """Format a count: ``1 rewrite``, ``2 rewrites``."""
    return f"{number} {what}" if number == 1 else f"{number} {several or f'{what}s'}"


def format_bytes(count: float) -> str:
    """Format a number of bytes: ``1.2 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_percent(share: float) -> str:
    """Format a share: ``12%``."""
    return "less than 1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def format_part(share: float) -> str:
    """Format a part of a difference; a negative one makes the difference smaller."""
    return f"takes {format_percent(-share)} off" if share < 0 else format_percent(share)


def as_html(text: str) -> str:
    """Return text as HTML that keeps its lines, for notebooks.

    Of a text that begins with a verdict and its reason (``PROVED: ...``), that line is the heading, as on a page.
    """
    first, _, rest = text.partition("\n")
    kind, colon, sentence = first.partition(": ")
    if not colon or kind not in SYMBOLS:
        return f"<pre>{html.escape(text)}</pre>"
    heading = f"<b>{SYMBOLS[kind]} {kind.replace('_', ' ')}</b> {html.escape(sentence)}"
    lines = f'<pre style="white-space: pre-wrap">{html.escape(rest)}</pre>' if rest else ""
    return f'<div style="border-left: 8px solid {EDGES[kind]}; padding-left: 1em">{heading}{lines}</div>'
