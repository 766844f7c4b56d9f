"""Operators that take an affine into their own constants: on their output, or on what they read."""

from foldproof.fusion.absorb.convolution import Convolution, TransposedConvolution
from foldproof.fusion.absorb.embedding import Embedding, EmbeddingBag
from foldproof.fusion.absorb.matrix import Einsum, Linear, MatrixProduct
from foldproof.fusion.absorb.norm import OwnAffine
from foldproof.fusion.absorb.rule import Absorber

ABSORBERS: tuple[Absorber, ...] = (
    Convolution(),
    TransposedConvolution(),
    Linear(),
    MatrixProduct(),
    Einsum(),
    Embedding(),
    EmbeddingBag(),
    OwnAffine(),
)
"""Every rule that absorbs an affine."""

__all__ = ["ABSORBERS", "Absorber"]
