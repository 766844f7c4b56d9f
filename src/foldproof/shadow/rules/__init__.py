"""Operator semantics, one file a family. Importing this package fills the registry."""

from foldproof.shadow.rules import (  # noqa: F401
    activation,
    arithmetic,
    attention,
    branching,
    comparison,
    complex,
    creation,
    decomposition,
    embedding,
    fourier,
    linear,
    normalisation,
    pooling,
    quantization,
    recurrent,
    reduction,
    structural,
)
