"""A scale and a shift of each channel, whatever the channels are: what is read, moved and absorbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foldproof.rewriting.expression import Operand
from foldproof.rewriting.vectors import UNREAD, product, reshaped, scaled, taken, total


@dataclass(frozen=True, eq=False)
class Affine:
    """``y = scale·x + shift``, where each element of x has the scale and shift of its channel.

    ``channels`` (int64) has the rank of x and along every axis its size, or 1 where all are alike; it holds each
    element's channel, from 0 to ``count - 1``, or `UNREAD`. ``scale`` and ``shift`` are vectors of ``count`` entries;
    None is 1 for the scale, and 0 for the shift.
    """

    channels: Tensor
    count: int
    scale: Operand
    shift: Operand

    @staticmethod
    def along(axis: int, rank: int, count: int, scale: Operand, shift: Operand) -> Affine:
        """One channel for each place along ``axis``."""
        shape = [1] * rank
        shape[axis] = count
        return Affine(torch.arange(count).reshape(shape), count, scale, shift)

    @property
    def is_identity(self) -> bool:
        return self.scale is None and self.shift is None

    @property
    def axes(self) -> list[int]:
        """The axes along which the channel changes."""
        return [axis for axis, size in enumerate(self.channels.shape) if size > 1]

    def on(self, channels: Tensor) -> Affine:
        """The same scales and shifts where the channels lie differently."""
        return Affine(compressed(channels), self.count, self.scale, self.shift)

    def same_as(self, other: Affine) -> bool:
        return (self.scale, self.shift) == (other.scale, other.shift) and torch.equal(self.channels, other.channels)

    def then(self, later: Affine) -> Affine:
        """``later(self(x))``."""
        first, second = self, later
        if first.count != second.count or not torch.equal(first.channels, second.channels):
            shape = torch.broadcast_shapes(first.channels.shape, second.channels.shape)
            first, second = first.renumbered(shape), second.renumbered(shape)
        scale = product(first.scale, second.scale)
        shift = total(scaled(first.shift, second.scale), second.shift)
        return Affine(first.channels, first.count, scale, shift)

    def renumbered(self, shape: torch.Size) -> Affine:
        """The same on a larger ``shape`` of channels, one for each place."""
        index = self.channels.expand(shape).reshape(-1)
        channels = torch.arange(len(index)).reshape(shape)
        return Affine(channels, len(index), taken(self.scale, index, 1.0), taken(self.shift, index, 0.0))

    def vectors(self, axis: int, size: int) -> tuple[Operand, Operand]:
        """Scale and shift of the ``size`` places along ``axis``, where the channels change along no other."""
        shape = [1] * self.channels.dim()
        shape[axis] = size
        return self.over(shape)

    def over(self, shape: Sequence[int]) -> tuple[Operand, Operand]:
        """Scale and shift of every place of ``shape``, which ``channels`` broadcast to, as vectors."""
        return self._picked(self.channels.expand(*shape).reshape(-1))

    def tensors(self) -> tuple[Operand, Operand]:
        """Scale and shift as tensors of the shape of ``channels``."""
        shape = tuple(self.channels.shape)
        scale, shift = self._picked(self.channels.reshape(-1))
        return reshaped(scale, shape), reshaped(shift, shape)

    def _picked(self, index: Tensor) -> tuple[Operand, Operand]:
        if torch.equal(index, torch.arange(self.count)):
            return self.scale, self.shift
        return taken(self.scale, index, 1.0), taken(self.shift, index, 0.0)


def compressed(channels: Tensor) -> Tensor:
    """``channels`` cut down to size 1 along each axis on which all that is read is alike."""
    for axis in range(channels.dim()):
        if channels.shape[axis] > 1:
            high = channels.amax(axis, keepdim=True)
            low = torch.where(channels == UNREAD, high, channels).amin(axis, keepdim=True)
            if torch.equal(high, low):
                channels = high
    return channels
