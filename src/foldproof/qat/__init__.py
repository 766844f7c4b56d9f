"""Folding what quantization-aware training leaves: simulated BatchNorms go into quantized biases.

In the order in which they depend on each other: ``context`` (the program under edit), ``quantization`` and
``operators`` (reading the graph), ``chain`` (operators that are an affine of each channel), ``weight``, ``bias`` and
``observers`` (what becomes of each, and how far it is moved), ``fold`` (plans), ``passes`` (proving them and carrying
them out), ``api``.
"""

from foldproof.qat.api import FoldQATResult, fold_qat
from foldproof.qat.fold import Folded
from foldproof.qat.fold_pass import FoldQATConvBN, QuantizeFusedConvBnBias, executorch_pass

__all__ = ["FoldQATConvBN", "FoldQATResult", "Folded", "QuantizeFusedConvBnBias", "executorch_pass", "fold_qat"]
