"""Folding what quantization-aware training leaves: simulated BatchNorms go into quantized biases.

In the order in which they depend on each other: ``image`` (computing constants from a graph as it was),
``quantization`` and ``operators`` (reading the graph), ``chain`` (what is an affine of each channel), ``region`` and
``rewriting`` (changing the program, and what is to be proved of it), ``weight``, ``bias`` and ``observers`` (what
becomes of each, and how far it is moved), ``fold``, ``passes``, ``api``.
"""

from foldproof.qat.api import FoldQATResult, fold_qat
from foldproof.qat.fold import Folded
from foldproof.qat.passes import FoldQATConvBN, QuantizeFusedConvBnBias, executorch_pass

__all__ = ["FoldQATConvBN", "FoldQATResult", "Folded", "QuantizeFusedConvBnBias", "executorch_pass", "fold_qat"]
