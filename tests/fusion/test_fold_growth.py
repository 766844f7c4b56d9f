"""Time grows with the size of the graph, not with its square."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import nn

import foldproof
from foldproof.fusion.examples import chain


def seconds_for_a_block(blocks: int) -> float:
    parts = (partial(nn.Conv2d, 3, 3, 1), partial(nn.BatchNorm2d, 3), nn.ReLU) * blocks
    model, inputs = chain((1, 3, 2, 2), *parts)()
    program = torch.export.export(model, inputs)
    times = []
    for _ in range(3):
        started = time.process_time()
        result = foldproof.fuse(program, inputs, prove=False)
        times.append(time.process_time() - started)
        assert len(result.rewrites) == blocks
    return min(times) / blocks


def test_eight_times_as_many_blocks_take_about_eight_times_as_long() -> None:
    small, large = seconds_for_a_block(40), seconds_for_a_block(320)
    assert large < 3 * small  # eight times, if it were quadratic
