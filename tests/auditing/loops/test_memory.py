"""Memory that was not written is no value that a program may depend on."""

from __future__ import annotations

import pytest
import torch

from foldproof.auditing.loops.memory import Memory, Place
from foldproof.auditing.loops.recorder import Recorder, Unreadable


def test_unwritten_numbers_are_those_of_no_other_buffer() -> None:
    memory = Memory(Recorder())
    for dtype in (torch.float32, torch.int64, torch.uint8):
        for name in ("one", "other"):
            memory.declare(name, 4, dtype)
        one, other = (memory.read(name, Place((4,), (1,))).example for name in ("one", "other"))
        assert one.shape == other.shape == (4,)
        numbers = [str(memory._arbitrary(memory.find(name)[0]).node.args[1]) for name in ("one", "other")]
        assert numbers[0] != numbers[1]


def test_unwritten_truth_values_are_not_read() -> None:
    memory = Memory(Recorder())
    memory.declare("mask", 4, torch.bool)
    with pytest.raises(Unreadable, match="mask holds truth values that were not written"):
        memory.read("mask", Place((4,), (1,)))
