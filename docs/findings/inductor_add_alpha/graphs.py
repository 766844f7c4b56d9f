"""The graph before and after post_grad.addmm. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg1_1):
    arg0_1 = torch.tensor([[1.0]])  # weight
    arg2_1 = torch.tensor([1.0])  # bias
    mm = torch.ops.aten.mm.default(arg1_1, arg0_1)  # <<<
    add = torch.ops.aten.add.Tensor(mm, arg2_1, alpha=2)  # <<<
    return (add,)


def after(arg1_1):
    arg0_1 = torch.tensor([[1.0]])  # weight
    arg2_1 = torch.tensor([1.0])  # bias
    addmm_default = torch.ops.aten.addmm.default(arg2_1, arg1_1, arg0_1)  # <<<
    return (addmm_default,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0], [1.0]])))
        print('after', after(torch.tensor([[1.0], [1.0]])))
