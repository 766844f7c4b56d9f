"""Typed programs, drawn from idioms by Hypothesis, which also shrinks them.

A line is typed by running it: each idiom has holes for tensors, dimensions, numbers and parameters, which are filled
from the values that the lines before it computed. An idiom whose lines raise an error is left out, so a program always
runs in eager mode. A number stands for a program: the same one gives the same program with the same versions of
Hypothesis and PyTorch. The text that is kept does not depend on them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from foldproof.errors import MissingExtra
from foldproof.hunting.idioms import IDIOMS
from foldproof.hunting.program import Program, load
from foldproof.hunting.scene import Scene, Unfit
from foldproof.log import log_caught

MOST = 5
"""Largest number of idioms in a program."""


def generate(number: int, training: bool = False) -> Program:
    """Return the program with this number.

    Raises:
        MissingExtra: Hypothesis is not installed.
    """
    return _draw(number, training, None)


def shrink(number: int, training: bool, shows: Callable[[Program], bool]) -> Program:
    """Return the simplest program that Hypothesis finds for which ``shows`` is true, from the one with this number."""
    return _draw(number, training, shows)


def _draw(number: int, training: bool, shows: Callable[[Program], bool] | None) -> Program:
    try:
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis import strategies as st
    except ImportError as error:
        raise MissingExtra("hypothesis", "hunt") from error
    drawn: list[Program] = []

    @seed(number)
    @settings(
        max_examples=2,  # the first one is always the simplest of all
        database=None,
        deadline=None,
        phases=(Phase.generate,) if shows is None else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(st.randoms(use_true_random=False))
    def run(rng: random.Random) -> None:
        program = compose(rng, number, training)
        if shows is None:
            drawn.append(program)
        elif shows(program):
            drawn.append(program)
            raise _Shown

    try:
        run()
    except _Shown:
        pass
    return drawn[-1]


class _Shown(Exception):
    """Tells Hypothesis that a program shows the fault."""


def compose(rng: random.Random, number: int, training: bool) -> Program:
    """Compose a program of random idioms."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(number)
        while True:
            scene = Scene(rng, training)
            for _ in range(rng.randint(1, MOST)):
                idiom = rng.choice(IDIOMS)
                try:
                    scene.add(idiom)
                except Unfit as error:
                    log_caught(error, f"filling {idiom!r}")
            program = scene.finish(number)
            try:
                check(program, training)
            except Exception as error:  # a line read what a later one wrote to
                log_caught(error, f"running program {number}")
            else:
                return program


def check(program: Program, training: bool = False) -> Any:
    """Run the program as its file does, and return its outputs."""
    model, inputs = load(program.write(training))
    return model(*inputs)
