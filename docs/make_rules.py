"""Writes docs/rules.md. Run by ``make docs``; by hand: ``python -m docs.make_rules`` (seconds)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from foldproof.fusion.absorb import ABSORBERS
from foldproof.fusion.affines import SOURCES
from foldproof.fusion.batching import BATCHING
from foldproof.fusion.dead_channels import DeadChannels
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging import MERGES
from foldproof.fusion.motion import MOTIONS
from foldproof.fusion.motion.limits import Limits
from foldproof.fusion.rewriter import DEFAULT, PASSES

PAGE = Path(__file__).with_name("rules.md")

INTRODUCTION = f"""\
# Rules of `fuse`

`make docs` generates this page from the rules; a test fails when it is stale.

`fuse` has one idea: **affines move, linear operators absorb them**. A *source* is an operator that scales and shifts
channels; consecutive sources count as one. The affine moves up towards the producer of its operand, or down towards all
readers of its result, through operators that it commutes with, until other operators *absorb* it into their constants.
The channel of an element is not guessed from shapes: views are run on element numbers. Each fold has a cost (copies of
weights against saved activations). It is proved on the region it touches, and withdrawn if it is not proved or loses
digits. In addition, operators that read the same tensor can be fused into one.

`fuse(…, passes=[…])` and `foldproof fuse --passes …` choose among {", ".join(f"`{name}`" for name in PASSES)}. The
default is all except {", ".join(f"`{name}`" for name in PASSES if name not in DEFAULT)}.

Every rule has examples on which it must fire (and be PROVED, in training IR and in core ATen), and examples on which it
must decline, with a reason that contains the words given here. The examples are in `src/foldproof/fusion/examples/`.
Tests run all of them, and check that the proof withdraws broken variants of the rules.
"""


class Rule(Protocol):
    """The common part of all rules."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]


def page() -> str:
    """The whole page."""
    groups: tuple[tuple[str, Sequence[Rule]], ...] = (
        ("Sources of affines", SOURCES),
        ("Motions", [*MOTIONS, Limits()]),
        ("Absorbers", ABSORBERS),
        ("Operators that become one", MERGES),
        ("Channels that are cut out", [DeadChannels()]),
        ("Readers of one tensor", BATCHING[:1]),
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
