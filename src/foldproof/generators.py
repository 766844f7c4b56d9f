"""PyTorch's default generators of random numbers: that of the CPU, and those of an accelerator in use."""

from __future__ import annotations

import contextlib
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
