"""The graph before and after post_grad.pointless_cumsum_replacement. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before():
    full_default = torch.ops.aten.full.default([4], 2.5, dtype=torch.float32, layout=torch.strided, device=torch.device('cpu'), pin_memory=False)
    cumsum = torch.ops.aten.cumsum.default(full_default, 0, dtype=torch.int64)  # <<<
    return (cumsum,)


def after():
    full_default = torch.ops.aten.full.default([4], 2.5, dtype=torch.float32, layout=torch.strided, device=torch.device('cpu'), pin_memory=False)
    iota_default = torch.ops.prims.iota.default(4, start=0, step=1, dtype=torch.int64, device=torch.device('cpu'), requires_grad=False)  # <<<
    mul_tensor = torch.ops.aten.mul.Tensor(iota_default, 1)  # <<<
    add_tensor = torch.ops.aten.add.Tensor(mul_tensor, 1)  # <<<
    convert_element_type_default = torch.ops.aten._to_copy.default(add_tensor, dtype=torch.float32)  # <<<
    mul_tensor_1 = torch.ops.aten.mul.Tensor(convert_element_type_default, 2.5)  # <<<
    expand_default = torch.ops.aten.expand.default(mul_tensor_1, [4])  # <<<
    return (expand_default,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before())
        print('after', after())
