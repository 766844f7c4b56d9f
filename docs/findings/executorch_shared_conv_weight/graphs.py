"""The graph before and after FuseBatchNormPass. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x, y):
    p_conv_weight = torch.tensor([[[[1.0, 1.0666667222976685], [1.1333333253860474, 1.2000000476837158]], [[1.2666666507720947, 1.3333333730697632], [1.399999976158142, 1.4666666984558105]]], [[[1.5333333015441895, 1.600000023841858], [1.6666666269302368, 1.7333333492279053]], [[1.7999999523162842, 1.8666666746139526], [1.9333332777023315, 2.0]]]])  # conv.weight  # <<<
    p_conv_bias = torch.tensor([1.0, 3.0])  # conv.bias  # <<<
    p_first_weight = torch.tensor([1.0, 4.0])  # first.weight  # <<<
    p_first_bias = torch.tensor([1.0, 5.0])  # first.bias  # <<<
    p_second_weight = torch.tensor([1.0, 2.0])  # second.weight  # <<<
    p_second_bias = torch.tensor([1.0, 3.0])  # second.bias  # <<<
    b_first_running_mean = torch.tensor([1.0, 6.0])  # first.running_mean  # <<<
    b_first_running_var = torch.tensor([1.0, 7.0])  # first.running_var  # <<<
    b_second_running_mean = torch.tensor([1.0, 4.0])  # second.running_mean  # <<<
    b_second_running_var = torch.tensor([1.0, 5.0])  # second.running_var  # <<<
    aten_convolution_default = torch.ops.aten.convolution.default(x, p_conv_weight, p_conv_bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    aten__native_batch_norm_legit_no_training_default = torch.ops.aten._native_batch_norm_legit_no_training.default(aten_convolution_default, p_first_weight, p_first_bias, b_first_running_mean, b_first_running_var, 0.1, 1e-05)  # <<<
    getitem = operator.getitem(aten__native_batch_norm_legit_no_training_default, 0)  # <<<
    aten_convolution_default_1 = torch.ops.aten.convolution.default(y, p_conv_weight, p_conv_bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    aten__native_batch_norm_legit_no_training_default_1 = torch.ops.aten._native_batch_norm_legit_no_training.default(aten_convolution_default_1, p_second_weight, p_second_bias, b_second_running_mean, b_second_running_var, 0.1, 1e-05)  # <<<
    getitem_1 = operator.getitem(aten__native_batch_norm_legit_no_training_default_1, 0)  # <<<
    aten_add_tensor = torch.ops.aten.add.Tensor(getitem, getitem_1)  # <<<
    return [aten_add_tensor]


def after(x, y):
    conv_weight_fused_bn = torch.tensor([[[[0.9999949932098389, 1.0666613578796387], [1.133327603340149, 1.1999940872192383]], [[1.2666603326797485, 1.3333266973495483], [1.3999929428100586, 1.4666593074798584]]], [[[2.3181803226470947, 2.418970823287964], [2.519761323928833, 2.620551824569702]], [[2.721342086791992, 2.8221325874328613], [2.9229230880737305, 3.0237135887145996]]]])  # conv_weight_fused_bn  # <<<
    conv_bias_fused_bn = torch.tensor([1.0, 0.4644298553466797])  # conv_bias_fused_bn  # <<<
    aten_convolution_default = torch.ops.aten.convolution.default(x, conv_weight_fused_bn, conv_bias_fused_bn, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    aten_convolution_default_1 = torch.ops.aten.convolution.default(y, conv_weight_fused_bn, conv_bias_fused_bn, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    aten_add_tensor = torch.ops.aten.add.Tensor(aten_convolution_default, aten_convolution_default_1)  # <<<
    return [aten_add_tensor]


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]])))
        print('after', after(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]])))
