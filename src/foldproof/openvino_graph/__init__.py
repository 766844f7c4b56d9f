"""OpenVINO's models as programs: what an operation of its intermediate representation computes, in PyTorch's terms.

A model in files, or one that a plugin has compiled, becomes a graph module with a node for each operation. Each calls
the *definition* of the operation, written after OpenVINO's specification of operations, as `foldproof.onnx_graph` has
definitions of ONNX's. Operations without a definition are refused (`NotTranslated`), never guessed.
"""

from __future__ import annotations

from foldproof.onnx_graph import NotTranslated
from foldproof.openvino_graph import definitions
from foldproof.openvino_graph.reader import read_compiled, read_model

__all__ = ["NotTranslated", "definitions", "read_compiled", "read_model"]
