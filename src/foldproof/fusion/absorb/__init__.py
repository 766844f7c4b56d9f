"""Operators that absorb an affine of their output or of their input into their own constants."""

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
"""All rules that absorb an affine."""

__all__ = ["ABSORBERS", "Absorber"]
