"""Detection of random numbers in a program."""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

import torch

from foldproof.operators import is_random
from foldproof.shadow.registry import RULES
from foldproof.shadow.undecided import Undecided, no_rule
from foldproof.torch_internals import DispatchMode, OpOverload


class GeneratorMoved(Undecided):
    """A generator was used during a run, by the program or by another thread."""


class Deterministic(DispatchMode):
    """While active, make random operators undecided: a proof would hold for one random outcome only.

    Custom operators, Python and numpy draw unseen by a dispatch mode; a generator's state shows that they did.

    Raises (from any operator, or at the end):
        Undecided: an operator is random.
        GeneratorMoved: a generator's state has changed.
    """

    def __init__(self) -> None:
        super().__init__()

    def __enter__(self) -> Deterministic:
        self._state = _generators()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        if raised[0] is None and self._state != _generators():
            raise GeneratorMoved("the program draws random numbers, in Python or inside of a custom operator")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, OpOverload) and is_random(func) and func not in RULES:
            raise no_rule(func)
        return func(*args, **(kwargs or {}))


def _generators() -> bytes:
    """Return the states of the generators on the CPU."""
    numpy = sys.modules.get("numpy")
    return pickle.dumps((torch.get_rng_state().tolist(), random.getstate(), numpy and numpy.random.get_state()))
