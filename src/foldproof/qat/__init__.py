"""Folding what quantization-aware training leaves: simulated BatchNorms go into quantized biases.

In the order in which they depend on each other: ``image`` (computing constants from a graph as it was),
``quantization`` and ``operators`` (reading the graph), ``chain`` (what is an affine of each channel), ``rewriting``
(changing the program), ``bias`` and ``observers`` (what is rounded, and how far), ``passes``, ``api``.
"""

from foldproof.qat.api import FoldQATResult, fold_qat
from foldproof.qat.passes import Folded, FoldQATConvBN, QuantizeFusedConvBnBias

__all__ = ["FoldQATConvBN", "FoldQATResult", "Folded", "QuantizeFusedConvBnBias", "fold_qat"]
