"""The graph before and after binary_folding.folded_op. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg3_1):
    arg0_1 = torch.tensor([[[[1.0]]]])  # _frozen_param0
    arg1_1 = torch.tensor([1.0])  # _frozen_param1
    arg2_1 = torch.tensor([[[1.0]]])  # _frozen_param2
    convolution = torch.ops.aten.convolution.default(arg3_1, arg0_1, arg1_1, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    sub = torch.ops.aten.sub.Tensor(convolution, arg2_1, alpha=2)  # <<<
    inductor_force_stride_order_default = torch.ops.prims.inductor_force_stride_order.default(sub, (1, 1, 1, 1))
    return (inductor_force_stride_order_default,)


def after(arg3_1):
    arg0_1 = torch.tensor([[[[1.0]]]])  # _frozen_param0
    arg1_1 = torch.tensor([1.0])  # _frozen_param1
    arg2_1 = torch.tensor([[[1.0]]])  # _frozen_param2
    reshape_default = torch.ops.aten.reshape.default(arg2_1, (1,))  # <<<
    expand_default = torch.ops.aten.expand.default(reshape_default, (1,))  # <<<
    sub_tensor = torch.ops.aten.sub.Tensor(arg1_1, expand_default)  # <<<
    convolution_default = torch.ops.aten.convolution.default(arg3_1, arg0_1, sub_tensor, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)  # <<<
    inductor_force_stride_order_default = torch.ops.prims.inductor_force_stride_order.default(convolution_default, (1, 1, 1, 1))
    return (inductor_force_stride_order_default,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0]]]])))
        print('after', after(torch.tensor([[[[1.0]]]])))
