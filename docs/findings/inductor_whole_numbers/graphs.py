"""The graph before and after joint_graph.mul_softmax_pattern. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1):
    mul = torch.ops.aten.mul.Tensor(arg0_1, 2.5)
    convert_element_type = torch.ops.aten._to_copy.default(mul, dtype=torch.int32)
    amax = torch.ops.aten.amax.default(convert_element_type, [1], True)
    sub = torch.ops.aten.sub.Tensor(convert_element_type, amax)
    return (sub,)


def after(arg0_1):
    mul_tensor = torch.ops.aten.mul.Tensor(arg0_1, 2.5)
    convert_element_type_default = torch.ops.aten._to_copy.default(mul_tensor, dtype=torch.int32)
    convert_element_type_default_1 = torch.ops.aten._to_copy.default(arg0_1, dtype=torch.int32)  # <<<
    mul_tensor_1 = torch.ops.aten.mul.Tensor(convert_element_type_default_1, 1)  # <<<
    amax_default = torch.ops.aten.amax.default(mul_tensor_1, [1], True)  # <<<
    sub_tensor = torch.ops.aten.sub.Tensor(mul_tensor_1, amax_default)  # <<<
    mul_tensor_2 = torch.ops.aten.mul.Tensor(sub_tensor, 2.5)  # <<<
    amax_default_1 = torch.ops.aten.amax.default(convert_element_type_default, [1], True)
    sub_tensor_1 = torch.ops.aten.sub.Tensor(convert_element_type_default, amax_default_1)
    full_default = torch.ops.aten.full.default([1, 2], True, dtype=torch.bool, layout=torch.strided, device=torch.device('cpu'), pin_memory=False)  # <<<
    logical_not_default = torch.ops.aten.logical_not.default(full_default)  # <<<
    any_dims = torch.ops.aten.any.dims(logical_not_default, [1], True)  # <<<
    logical_not_default_1 = torch.ops.aten.logical_not.default(any_dims)  # <<<
    where_self = torch.ops.aten.where.self(logical_not_default_1, mul_tensor_2, sub_tensor_1)  # <<<
    return (where_self,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[0.0, 1.0]])))
        print('after', after(torch.tensor([[0.0, 1.0]])))
