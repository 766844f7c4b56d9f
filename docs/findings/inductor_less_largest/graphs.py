"""The graph before and after joint_graph.mul_softmax_pattern. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg1_1):
    arg0_1 = torch.tensor([1.0, 2.0])  # scale
    mul = torch.ops.aten.mul.Tensor(arg1_1, arg0_1)
    amax = torch.ops.aten.amax.default(mul, [], True)
    sub = torch.ops.aten.sub.Tensor(mul, amax)
    return (sub,)


def after(arg1_1):
    arg0_1 = torch.tensor([1.0, 2.0])  # scale
    mul_tensor = torch.ops.aten.mul.Tensor(arg1_1, arg0_1)
    scalar_tensor_default = torch.ops.aten.scalar_tensor.default(1, dtype=torch.float32, device=device(type='cpu'), pin_memory=False)  # <<<
    ge_scalar = torch.ops.aten.ge.Scalar(arg0_1, 0)  # <<<
    neg_default = torch.ops.aten.neg.default(scalar_tensor_default)  # <<<
    where_self = torch.ops.aten.where.self(ge_scalar, scalar_tensor_default, neg_default)  # <<<
    mul_tensor_1 = torch.ops.aten.mul.Tensor(arg1_1, where_self)  # <<<
    amax_default = torch.ops.aten.amax.default(mul_tensor_1, [], True)  # <<<
    sub_tensor = torch.ops.aten.sub.Tensor(mul_tensor_1, amax_default)  # <<<
    mul_tensor_2 = torch.ops.aten.mul.Tensor(where_self, arg0_1)  # <<<
    mul_tensor_3 = torch.ops.aten.mul.Tensor(sub_tensor, mul_tensor_2)  # <<<
    amax_default_1 = torch.ops.aten.amax.default(mul_tensor, [], True)
    sub_tensor_1 = torch.ops.aten.sub.Tensor(mul_tensor, amax_default_1)
    abs_default = torch.ops.aten.abs.default(mul_tensor)  # <<<
    ne_scalar = torch.ops.aten.ne.Scalar(abs_default, inf)  # <<<
    eq_tensor = torch.ops.aten.eq.Tensor(mul_tensor, mul_tensor)  # <<<
    mul_tensor_4 = torch.ops.aten.mul.Tensor(eq_tensor, ne_scalar)  # <<<
    logical_not_default = torch.ops.aten.logical_not.default(mul_tensor_4)  # <<<
    any_dims = torch.ops.aten.any.dims(logical_not_default, [], True)  # <<<
    logical_not_default_1 = torch.ops.aten.logical_not.default(any_dims)  # <<<
    where_self_1 = torch.ops.aten.where.self(logical_not_default_1, mul_tensor_3, sub_tensor_1)  # <<<
    return (where_self_1,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0]])))
        print('after', after(torch.tensor([[1.0]])))
