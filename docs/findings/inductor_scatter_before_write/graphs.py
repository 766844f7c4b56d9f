"""The graph before and after reinplace_inplaceable_ops. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1, arg1_1):
    slice_scatter = torch.ops.aten.slice_scatter.default(arg0_1, arg1_1, 0, 1)  # <<<
    full_default = torch.ops.aten.full.default([2, 1], 0, dtype=torch.float32, layout=torch.strided, device=torch.device('cpu'), pin_memory=False)
    copy_ = torch.ops.aten.copy_.default(arg0_1, full_default)
    return (slice_scatter,)


def after(arg0_1, arg1_1):
    slice_tensor = torch.ops.aten.slice.Tensor(arg0_1, 0, 1)  # <<<
    copy__default = torch.ops.aten.copy_.default(slice_tensor, arg1_1)  # <<<
    full_default = torch.ops.aten.full.default([2, 1], 0, dtype=torch.float32, layout=torch.strided, device=torch.device('cpu'), pin_memory=False)
    copy_ = torch.ops.aten.copy_.default(arg0_1, full_default)
    return (arg0_1,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0]])))
        print('after', after(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0]])))
