"""The graph before and after conversion to OpenVINO. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x):
    gt = torch.ops.aten.gt.Scalar(x, 0)  # <<<
    cumsum = torch.ops.aten.cumsum.default(gt, 0)  # <<<
    return (cumsum,)


def after(x):
    single = foldproof.onnx_graph.reader.single(0.0, (), to=1)  # <<<
    gt = foldproof.openvino_graph.definitions.greater(x, single, auto_broadcast='numpy')  # <<<
    single_1 = foldproof.onnx_graph.reader.single(0, (), to=7)  # <<<
    cumsum = foldproof.openvino_graph.definitions.cumsum(gt, [0], exclusive=False, reverse=False)  # <<<
    return (cumsum,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.rand(463)))
        print('after', after(torch.rand(463)))
