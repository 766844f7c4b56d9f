"""The graph before and after _fuse_conv_bn_. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x):
    conv_weight = torch.tensor([[[[1.0]]], [[[2.0]]]])  # conv.weight  # <<<
    conv_bias = torch.tensor([1.0, 3.0])  # conv.bias  # <<<
    first_weight = torch.tensor([1.0, 4.0])  # first.weight  # <<<
    first_bias = torch.tensor([1.0, 5.0])  # first.bias  # <<<
    second_weight = torch.tensor([1.0, 2.0])  # second.weight  # <<<
    second_bias = torch.tensor([1.0, 3.0])  # second.bias  # <<<
    first_running_mean = torch.tensor([1.0, 6.0])  # first.running_mean  # <<<
    first_running_var = torch.tensor([1.0, 7.0])  # first.running_var  # <<<
    second_running_mean = torch.tensor([1.0, 4.0])  # second.running_mean  # <<<
    second_running_var = torch.tensor([1.0, 5.0])  # second.running_var  # <<<
    conv2d = torch.ops.aten.conv2d.default(x, conv_weight, conv_bias)  # <<<
    batch_norm = torch.ops.aten.batch_norm.default(conv2d, first_weight, first_bias, first_running_mean, first_running_var, False, 0.1, 1e-05, False)  # <<<
    batch_norm_1 = torch.ops.aten.batch_norm.default(batch_norm, second_weight, second_bias, second_running_mean, second_running_var, False, 0.1, 1e-05, False)  # <<<
    return (batch_norm_1,)


def after(x):
    conv_weight = torch.tensor([[[[0.9999949932098389]]], [[[3.0237135887145996]]]])  # conv.weight  # <<<
    conv_bias = torch.tensor([1.0, 0.4644298553466797])  # conv.bias  # <<<
    conv2d = torch.ops.aten.conv2d.default(x, conv_weight, conv_bias)  # <<<
    return (conv2d,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0]]]])))
        print('after', after(torch.tensor([[[[1.0]]]])))
