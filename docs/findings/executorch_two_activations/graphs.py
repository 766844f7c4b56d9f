"""The graph before and after FuseActivationPass. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(input_1):
    p_m0_weight = torch.tensor([[[[-1.0]]]])  # m0.weight
    p_m0_bias = torch.tensor([-1.0])  # m0.bias
    aten_convolution_default = torch.ops.aten.convolution.default(input_1, p_m0_weight, p_m0_bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    aten_relu_default = torch.ops.aten.relu.default(aten_convolution_default)  # <<<
    aten_hardtanh_default = torch.ops.aten.hardtanh.default(aten_relu_default, -1.0, 1.0)  # <<<
    return [aten_hardtanh_default]


def after(input_1):
    p_m0_weight = torch.tensor([[[[-1.0]]]])  # m0.weight
    p_m0_bias = torch.tensor([-1.0])  # m0.bias
    aten_convolution_default = torch.ops.aten.convolution.default(input_1, p_m0_weight, p_m0_bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    clamp_default = torch.ops.aten.clamp.default(aten_convolution_default, -1.0, 1.0)  # <<<
    return [clamp_default]


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0]]]])))
        print('after', after(torch.tensor([[[[1.0]]]])))
