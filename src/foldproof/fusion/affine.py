"""An affine: a scale and a shift for each channel, where channels may lie in any way."""

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

    ``channels`` (int64) has the rank of x, and along every axis the size of x, or 1 if the channel does not change on
    it. It holds each element's channel, from 0 to ``count - 1``, or `UNREAD`. ``scale`` and ``shift`` are vectors of
    ``count`` entries; None stands for the scale 1, and for the shift 0.
    """

    channels: Tensor
    count: int
    scale: Operand
    shift: Operand

    @staticmethod
    def along(axis: int, rank: int, count: int, scale: Operand, shift: Operand) -> Affine:
        """Return an affine with one channel for each index along ``axis``."""
        shape = [1] * rank
        shape[axis] = count
        return Affine(torch.arange(count).reshape(shape), count, scale, shift)

    @property
    def is_identity(self) -> bool:
        return self.scale is None and self.shift is None

    @property
    def axes(self) -> list[int]:
        """Axes along which the channel changes."""
        return [axis for axis, size in enumerate(self.channels.shape) if size > 1]

    def on(self, channels: Tensor) -> Affine:
        """Return an affine with the same scales and shifts on other ``channels``."""
        return Affine(compress(channels), self.count, self.scale, self.shift)

    def same_as(self, other: Affine) -> bool:
        return (self.scale, self.shift) == (other.scale, other.shift) and torch.equal(self.channels, other.channels)

    def then(self, later: Affine) -> Affine:
        """Return the composition ``later(self(x))``."""
        first, second = self, later
        if first.count != second.count or not torch.equal(first.channels, second.channels):
            shape = torch.broadcast_shapes(first.channels.shape, second.channels.shape)
            first, second = first.renumber(shape), second.renumber(shape)
        scale = product(first.scale, second.scale)
        shift = total(scaled(first.shift, second.scale), second.shift)
        return Affine(first.channels, first.count, scale, shift)

    def renumber(self, shape: torch.Size) -> Affine:
        """Return the same affine with one channel for each element of a larger ``shape``."""
        index = self.channels.expand(shape).reshape(-1)
        channels = torch.arange(len(index)).reshape(shape)
        return Affine(channels, len(index), taken(self.scale, index, 1.0), taken(self.shift, index, 0.0))

    def vectors(self, axis: int, size: int) -> tuple[Operand, Operand]:
        """Return scale and shift along ``axis``, of length ``size``; the channels change along no other axis."""
        shape = [1] * self.channels.dim()
        shape[axis] = size
        return self.over(shape)

    def over(self, shape: Sequence[int]) -> tuple[Operand, Operand]:
        """Return scale and shift of every element of ``shape``, which ``channels`` broadcast to, as vectors."""
        return self._picked(self.channels.expand(*shape).reshape(-1))

    def tensors(self) -> tuple[Operand, Operand]:
        """Return scale and shift as tensors of the shape of ``channels``."""
        shape = tuple(self.channels.shape)
        scale, shift = self._picked(self.channels.reshape(-1))
        return reshaped(scale, shape), reshaped(shift, shape)

    def _picked(self, index: Tensor) -> tuple[Operand, Operand]:
        if torch.equal(index, torch.arange(self.count)):
            return self.scale, self.shift
        return taken(self.scale, index, 1.0), taken(self.shift, index, 0.0)


def compress(channels: Tensor) -> Tensor:
    """Cut ``channels`` to size 1 along each axis on which the channel does not change, apart from `UNREAD`."""
    for axis in range(channels.dim()):
        if channels.shape[axis] > 1:
            high = channels.amax(axis, keepdim=True)
            low = torch.where(channels == UNREAD, high, channels).amin(axis, keepdim=True)
            if torch.equal(high, low):
                channels = high
    return channels
