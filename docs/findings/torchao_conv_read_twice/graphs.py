"""The graph before and after _fuse_conv_bn_. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x):
    conv_weight = torch.tensor([[[[1.0]]], [[[2.0]]]])  # conv.weight  # <<<
    conv_bias = torch.tensor([1.0, 3.0])  # conv.bias  # <<<
    bn_weight = torch.tensor([1.0, 4.0])  # bn.weight  # <<<
    bn_bias = torch.tensor([1.0, 5.0])  # bn.bias  # <<<
    bn_running_mean = torch.tensor([1.0, 6.0])  # bn.running_mean  # <<<
    bn_running_var = torch.tensor([1.0, 7.0])  # bn.running_var  # <<<
    conv2d = torch.ops.aten.conv2d.default(x, conv_weight, conv_bias)  # <<<
    batch_norm = torch.ops.aten.batch_norm.default(conv2d, bn_weight, bn_bias, bn_running_mean, bn_running_var, False, 0.1, 1e-05, False)  # <<<
    add = torch.ops.aten.add.Tensor(batch_norm, conv2d)  # <<<
    return (add,)


def after(x):
    conv_weight = torch.tensor([[[[0.9999949932098389]]], [[[3.0237135887145996]]]])  # conv.weight  # <<<
    conv_bias = torch.tensor([1.0, 0.4644298553466797])  # conv.bias  # <<<
    conv2d = torch.ops.aten.conv2d.default(x, conv_weight, conv_bias)  # <<<
    add = torch.ops.aten.add.Tensor(conv2d, conv2d)  # <<<
    return (add,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0]]]])))
        print('after', after(torch.tensor([[[[1.0]]]])))
