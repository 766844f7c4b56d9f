"""The graph before and after FuseBatchNormPass. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(input_1):
    p_m0_weight = torch.tensor([[1.0, 1.3333333730697632], [1.6666666269302368, 2.0]])  # m0.weight  # <<<
    p_m0_bias = torch.tensor([1.0, 3.0])  # m0.bias  # <<<
    p_m1_weight = torch.tensor([1.0, 4.0])  # m1.weight  # <<<
    p_m1_bias = torch.tensor([1.0, 5.0])  # m1.bias  # <<<
    b_m1_running_mean = torch.tensor([1.0, 6.0])  # m1.running_mean  # <<<
    b_m1_running_var = torch.tensor([1.0, 7.0])  # m1.running_var  # <<<
    aten_linear_default = torch.ops.aten.linear.default(input_1, p_m0_weight, p_m0_bias)  # <<<
    aten__native_batch_norm_legit_no_training_default = torch.ops.aten._native_batch_norm_legit_no_training.default(aten_linear_default, p_m1_weight, p_m1_bias, b_m1_running_mean, b_m1_running_var, 0.1, 1e-05)  # <<<
    getitem = operator.getitem(aten__native_batch_norm_legit_no_training_default, 0)  # <<<
    return [getitem]


def after(input_1):
    m0_weight_fused_bn = torch.tensor([[0.9999949932098389, 1.3333266973495483], [2.519761323928833, 3.0237135887145996]])  # m0_weight_fused_bn  # <<<
    m0_bias_fused_bn = torch.tensor([1.0, 0.4644298553466797])  # m0_bias_fused_bn  # <<<
    aten_linear_default = torch.ops.aten.linear.default(input_1, m0_weight_fused_bn, m0_bias_fused_bn)  # <<<
    return [aten_linear_default]


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])))
        print('after', after(torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])))
