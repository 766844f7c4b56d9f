"""Writes docs/rules.md. Run by ``make docs``; by hand: ``python -m docs.make_rules`` (seconds)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from foldproof.fusion.absorb import ABSORBERS
from foldproof.fusion.affines import SOURCES
from foldproof.fusion.batching import BATCHING
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.motion import MOTIONS
from foldproof.fusion.parallel import PARALLEL
from foldproof.fusion.rewriter import DEFAULT, PASSES

PAGE = Path(__file__).with_name("rules.md")

INTRODUCTION = f"""\
# Rules of `fuse`

Generated from the rules themselves by `make docs`; a test fails when this page is stale.

`fuse` has one idea: **affines move, linear operators absorb**. A *source* is an operator that is a scale and a shift of
channels. Sources in a row are one. The affine is moved up, towards what computes the value that it scales, or down,
towards all that read it, through operators that it commutes with, until operators *absorb* it into their constants.
Which channel an element belongs to is not guessed from shapes: views are run on the numbers of the elements. Each fold
is weighed (copies of weights against activations that need not be moved), proved on the region that it touches, and
withdrawn if it is not proved, or if it loses digits. Beside that, operators that read one tensor can be made one.

`fuse(…, passes=[…])` and `foldproof fuse --passes …` choose among {", ".join(f"`{name}`" for name in PASSES)}; by
default all but {", ".join(f"`{name}`" for name in PASSES if name not in DEFAULT)} are applied.

Every rule has examples on which it must fire (and be PROVED, in training IR and in core ATen), and on which it must
decline, with a reason that contains the words given here. They are in `src/foldproof/fusion/examples/`, and tests loop
over them; broken variants of the rules must be withdrawn by the proof.
"""


class Rule(Protocol):
    """What all rules have."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]


def page() -> str:
    """The whole page."""
    groups: tuple[tuple[str, Sequence[Rule]], ...] = (
        ("What is an affine", SOURCES),
        ("How it moves", MOTIONS),
        ("What absorbs it", ABSORBERS),
        ("What is added up", (PARALLEL,)),
        ("What reads one tensor", BATCHING[:1]),
    )
    parts = [INTRODUCTION]
    for title, rules in groups:
        parts.append(f"## {title}\n")
        parts += [_rule(rule) for rule in rules]
    return "\n".join(parts)


def _rule(rule: Rule) -> str:
    text = inspect.cleandoc(type(rule).__doc__ or "")
    fires = "\n".join(f"* {example.name}" for example in rule.fires)
    declines = "\n".join(f"* {example.name}: “… {example.reason} …”" for example in rule.declines)
    return f"### {rule.id}\n\n{text}\n\nFires:\n\n{fires}\n\nDeclines:\n\n{declines}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
