"""Settings shared by all tests."""

from __future__ import annotations

import pytest
import torch

from tests.swallowed import swallowed as swallowed  # for every test

# One thread: the same sums in the same order, and workers that run side by side do not disturb each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whatever ran before it in its process."""
    torch.default_generator.manual_seed(0)  # of all devices it would take 5 ms, to write the stack down
