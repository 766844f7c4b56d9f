"""The graph before and after binary_folding.folded_op. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg6_1):
    arg0_1 = torch.tensor([[[[1.0]], [[1.3333333730697632]]], [[[1.6666666269302368]], [[2.0]]]])  # _frozen_param0
    unsqueeze_3 = torch.tensor([[[0.9999949932098389]], [[0.37796419858932495]]])  # _frozen_param7
    sub_tensor = torch.tensor([0.0, -3.0])  # _frozen_param10
    convolution_default = torch.ops.aten.convolution.default(arg6_1, arg0_1, sub_tensor, [1, 1], [0, 0], [1, 1], True, [0, 0], 1)  # <<<
    mul_1 = torch.ops.aten.mul.Tensor(convolution_default, unsqueeze_3)  # <<<
    unsqueeze_5 = torch.tensor([[[1.0]], [[4.0]]])  # _frozen_param8
    mul_2 = torch.ops.aten.mul.Tensor(mul_1, unsqueeze_5)  # <<<
    unsqueeze_7 = torch.tensor([[[1.0]], [[5.0]]])  # _frozen_param9
    add_1 = torch.ops.aten.add.Tensor(mul_2, unsqueeze_7)  # <<<
    inductor_force_stride_order_default = torch.ops.prims.inductor_force_stride_order.default(add_1, (2, 1, 1, 1))  # <<<
    return (inductor_force_stride_order_default,)


def after(arg6_1):
    arg0_1 = torch.tensor([[[[1.0]], [[1.3333333730697632]]], [[[1.6666666269302368]], [[2.0]]]])  # _frozen_param0
    unsqueeze_3 = torch.tensor([[[0.9999949932098389]], [[0.37796419858932495]]])  # _frozen_param7
    sub_tensor = torch.tensor([0.0, -3.0])  # _frozen_param10
    reshape_default_1 = torch.ops.aten.reshape.default(unsqueeze_3, (2, 1, 1, 1))  # <<<
    mul_tensor = torch.ops.aten.mul.Tensor(arg0_1, reshape_default_1)  # <<<
    reshape_default_2 = torch.ops.aten.reshape.default(unsqueeze_3, (2,))  # <<<
    mul_tensor_1 = torch.ops.aten.mul.Tensor(sub_tensor, reshape_default_2)  # <<<
    convolution_default_1 = torch.ops.aten.convolution.default(arg6_1, mul_tensor, mul_tensor_1, [1, 1], [0, 0], [1, 1], True, [0, 0], 1)  # <<<
    unsqueeze_5 = torch.tensor([[[1.0]], [[4.0]]])  # _frozen_param8
    mul_2 = torch.ops.aten.mul.Tensor(convolution_default_1, unsqueeze_5)  # <<<
    unsqueeze_7 = torch.tensor([[[1.0]], [[5.0]]])  # _frozen_param9
    add_1 = torch.ops.aten.add.Tensor(mul_2, unsqueeze_7)  # <<<
    inductor_force_stride_order_default = torch.ops.prims.inductor_force_stride_order.default(add_1, (2, 1, 1, 1))  # <<<
    return (inductor_force_stride_order_default,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0]], [[1.0]]]])))
        print('after', after(torch.tensor([[[[1.0]], [[1.0]]]])))
