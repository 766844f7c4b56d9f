"""Default generators of random numbers: PyTorch's of the CPU and of an accelerator in use, Python's, and NumPy's."""

from __future__ import annotations

import contextlib
import pickle
import random
import sys
from collections.abc import Iterator

import torch
from torch import Tensor


def find_generators() -> list[torch.Generator]:
    """Return the default generators: the CPU's, and one for each device of an accelerator that has been used."""
    accelerator = torch.accelerator.current_accelerator()
    module = None if accelerator is None else torch.get_device_module(accelerator)
    return [torch.default_generator, *getattr(module, "default_generators", ())]


def read_states() -> list[Tensor]:
    """Return the states of the default generators, as bytes on the CPU."""
    return [generator.get_state() for generator in find_generators()]


def seed_generators(seed: int) -> None:
    """Put the default generators into the state of ``seed``.

    `torch.manual_seed` does the same in 5 ms, since it writes the stack down.
    """
    for generator in find_generators():
        generator.manual_seed(seed)


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Put the states of the default generators back at the end."""
    states = [(generator, generator.get_state()) for generator in find_generators()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def read_other_states() -> bytes:
    """Return the states of the generators of Python and NumPy."""
    numpy = sys.modules.get("numpy")
    return pickle.dumps((random.getstate(), numpy and numpy.random.get_state()))


def seed_other_generators(seed: int) -> None:
    """Put the generators of Python and NumPy into the state of ``seed``."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


@contextlib.contextmanager
def kept_other_generators() -> Iterator[None]:
    """Put the states of Python's and NumPy's generators back at the end."""
    numpy, state = sys.modules.get("numpy"), random.getstate()
    of_numpy = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(of_numpy)
