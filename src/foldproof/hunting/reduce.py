"""A smaller program that shows the same: greedy removal of outputs and lines.

It works on the lines of the text, so that what is left stays readable. `foldproof.auditing.reduce` then makes graphs of
it, with smaller sizes and simpler arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from foldproof.hunting.program import NAMES, Program

HELD = re.compile(r"self\.(\w+)")
LAYOUT = re.compile(r"(\.transpose\(0, -1\)|\[[^()]*\]|\.to\(memory_format=[\w.]+\))$")
"""The end of an input's expression that gives it another layout."""


def reduce_program(program: Program, shows: Callable[[Program], bool]) -> Program:
    """Return the smallest program found for which ``shows`` is true, as it is of ``program``."""
    found: Program | None = program
    while found is not None:
        program = found
        found = next((one for one in _list_smaller(program) if shows(one)), None)
    return program


def _list_smaller(program: Program) -> Iterator[Program]:
    """Yield programs with fewer outputs or lines, or inputs in a plain layout, the ones that lack most first."""
    if len(program.returns) > 1:
        for name in program.returns:
            yield _prune(replace(program, returns=(name,)))
    for i, (name, code) in enumerate(program.inputs):
        if LAYOUT.search(code):
            plain = (name, LAYOUT.sub("", code))
            yield replace(program, inputs=(*program.inputs[:i], plain, *program.inputs[i + 1 :]))
    step = len(program.lines)
    while step > 1:
        step = (step + 1) // 2
        for start in range(0, len(program.lines), step):
            left = _without(program, range(start, start + step))
            if left is not None:
                yield left
        if step == 1:
            break


def _without(program: Program, dropped: range) -> Program | None:
    """Return the program without some lines, and those that read their values; None if no output is left."""
    gone: set[str] = set()
    lines = []
    for i, line in enumerate(program.lines):
        made = _names_of(line)
        if i in dropped or gone & set(NAMES.findall(line)) - made:
            gone |= made
        else:
            lines.append(line)
    returns = tuple(name for name in program.returns if name not in gone)
    return _prune(replace(program, lines=tuple(lines), returns=returns)) if returns else None


def _prune(program: Program) -> Program:
    """Leave out inputs and state that no line reads; one input stays."""
    read = set(NAMES.findall("\n".join([*program.lines, *program.returns])))
    held = set(HELD.findall("\n".join(program.lines)))
    inputs = tuple(one for one in program.inputs if one[0] in read) or program.inputs[:1]
    state = tuple(line for line in program.state if held & {*HELD.findall(line), *re.findall(r'"(\w+)"', line)})
    return replace(program, inputs=inputs, state=state)


def _names_of(line: str) -> set[str]:
    """Return the names that a line assigns to."""
    target = re.match(r"v\d+(?:, v\d+)* = ", line)
    return set(NAMES.findall(target[0])) if target else set()
