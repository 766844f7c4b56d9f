"""ONNX models as programs: what a node computes, in PyTorch's terms.

A graph of ONNX becomes a graph module with a node for each of its nodes. Each calls the *definition* of its operator: a
function on tensors, written with PyTorch's own operators after the specification of ONNX. So everything that reads
graphs works on ONNX models, too: proofs, differences and reductions.

A proof is about the definitions. Examples of ONNX's own specification and ONNX Runtime test that they are what ONNX
means, over each operator's attributes. Where a definition covers a part of an operator only, the rest is refused
(`NotTranslated`), never guessed.
"""

from __future__ import annotations

from foldproof.onnx_graph import (
    blocks,
    control_flow,
    fourier,
    linear,
    normalisation,
    pointwise,
    quantization,
    recurrent,
    reductions,
    resizing,
    shapes,
    windows,
)
from foldproof.onnx_graph.held_shapes import hold_shapes
from foldproof.onnx_graph.reader import draw_inputs, read_graph
from foldproof.onnx_graph.registry import DEFINITIONS, NotTranslated

__all__ = [
    "DEFINITIONS",
    "NotTranslated",
    "blocks",
    "control_flow",
    "draw_inputs",
    "fourier",
    "hold_shapes",
    "linear",
    "normalisation",
    "pointwise",
    "quantization",
    "read_graph",
    "recurrent",
    "reductions",
    "resizing",
    "shapes",
    "windows",
]
