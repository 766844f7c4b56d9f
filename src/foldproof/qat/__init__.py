"""Folding after quantization-aware training: simulated BatchNorms are folded into quantized biases.

The modules, in the order of their dependencies: ``context`` (the program under edit), ``quantization`` and
``operators`` (reading the graph), ``chain`` (operators that are an affine of each channel), ``weight``, ``bias`` and
``observers`` (new values, with bounds of the change), ``fold`` (plans), ``fold_pass`` (proofs and changes), ``api``.
"""

from foldproof.qat.api import FoldQATResult, fold_qat
from foldproof.qat.fold import Folded
from foldproof.qat.fold_pass import FoldQATConvBN, QuantizeFusedConvBnBias, executorch_pass

__all__ = ["FoldQATConvBN", "FoldQATResult", "Folded", "QuantizeFusedConvBnBias", "executorch_pass", "fold_qat"]
