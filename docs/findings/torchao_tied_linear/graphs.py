"""The graph before and after _fuse_linear_bn_. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x):
    linear_weight = torch.tensor([[1.0, 1.3333333730697632], [1.6666666269302368, 2.0]])  # linear.weight  # <<<
    linear_bias = torch.tensor([1.0, 3.0])  # linear.bias  # <<<
    first_weight = torch.tensor([1.0, 4.0])  # first.weight  # <<<
    first_bias = torch.tensor([1.0, 5.0])  # first.bias  # <<<
    first_running_mean = torch.tensor([1.0, 6.0])  # first.running_mean  # <<<
    first_running_var = torch.tensor([1.0, 7.0])  # first.running_var  # <<<
    linear = torch.ops.aten.linear.default(x, linear_weight, linear_bias)  # <<<
    batch_norm = torch.ops.aten.batch_norm.default(linear, first_weight, first_bias, first_running_mean, first_running_var, False, 0.1, 1e-05, False)  # <<<
    linear_1 = torch.ops.aten.linear.default(batch_norm, linear_weight, linear_bias)  # <<<
    return (linear_1,)


def after(x):
    linear_weight = torch.tensor([[0.9999949932098389, 1.3333266973495483], [2.519761323928833, 3.0237135887145996]])  # linear.weight  # <<<
    linear_bias = torch.tensor([1.0, 0.4644298553466797])  # linear.bias  # <<<
    linear = torch.ops.aten.linear.default(x, linear_weight, linear_bias)  # <<<
    linear_1 = torch.ops.aten.linear.default(linear, linear_weight, linear_bias)  # <<<
    return (linear_1,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0, 1.0]])))
        print('after', after(torch.tensor([[1.0, 1.0]])))
