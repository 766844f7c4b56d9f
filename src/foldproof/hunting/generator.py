"""Typed programs, composed of idioms at random.

A line is typed by running it: each idiom has holes for tensors, dimensions, numbers and parameters, which are filled
from the values that the lines before it computed. An idiom whose lines raise an error is left out, so a program always
runs in eager mode. A number stands for a program. It is the seed of Python's random numbers, so that a program does not
depend on the version of another library.
"""

from __future__ import annotations

import random

import torch

from foldproof.generators import kept_generators
from foldproof.hunting.idioms import IDIOMS
from foldproof.hunting.program import Program, load
from foldproof.hunting.scene import Scene, Unfit
from foldproof.log import log_caught

MOST = 5
"""Largest number of idioms in a program."""


def generate(number: int, training: bool = False) -> Program:
    """Return the program with this number; one for training has gradients."""
    rng = random.Random(number)
    with kept_generators(), torch.set_grad_enabled(training):
        torch.manual_seed(number)
        while True:
            scene = Scene(rng, training)
            idioms = [rng.choice(IDIOMS) for _ in range(rng.randint(1, MOST))]
            for idiom in ["{a} = {x} * {vector}"] * training + idioms:
                _add(scene, idiom)
            program = scene.finish(number)
            try:
                check(program, training)
            except (RuntimeError, Unfit) as error:  # a line, or the backward, read what a later line wrote to
                log_caught(error, f"running program {number}")
            else:
                return program


def _add(scene: Scene, idiom: str) -> None:
    """Add an idiom, if it has a place."""
    try:
        scene.add(idiom)
    except Unfit as error:
        log_caught(error, f"filling {idiom!r}")


def check(program: Program, training: bool = False) -> None:
    """Run the program as its file does, and its backward if it is for training.

    Raises:
        Unfit: it has no gradients.
        Exception: it does not run.
    """
    model, inputs = load(program.write(training))
    with torch.set_grad_enabled(training):
        outputs = model(*inputs)
    if training:
        seeded = [x for x in outputs if x.requires_grad]
        if not seeded:
            raise Unfit("no output requires gradients")
        torch.stack([x.double().sum() for x in seeded]).sum().backward()
