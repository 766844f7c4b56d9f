"""The graph before and after batch_aten_sub. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1, arg1_1):
    unbind = torch.ops.aten.unbind.int(arg0_1)
    getitem = operator.getitem(unbind, 0)
    getitem_1 = operator.getitem(unbind, 1)
    sub = torch.ops.aten.sub.Tensor(getitem, getitem, alpha=2)  # <<<
    sub_1 = torch.ops.aten.sub.Tensor(arg1_1, getitem_1, alpha=2)  # <<<
    cat = torch.ops.aten.cat.default([sub, sub_1])
    return (cat,)


def after(arg0_1, arg1_1):
    unbind = torch.ops.aten.unbind.int(arg0_1)
    getitem = operator.getitem(unbind, 0)
    getitem_1 = operator.getitem(unbind, 1)
    unsqueeze = torch.ops.aten.unsqueeze.default(getitem, dim=0)  # <<<
    unsqueeze_1 = torch.ops.aten.unsqueeze.default(arg1_1, dim=0)  # <<<
    cat_1 = torch.ops.aten.cat([unsqueeze, unsqueeze_1], dim=0)  # <<<
    unsqueeze_2 = torch.ops.aten.unsqueeze.default(getitem, dim=0)  # <<<
    unsqueeze_3 = torch.ops.aten.unsqueeze.default(getitem_1, dim=0)  # <<<
    cat_2 = torch.ops.aten.cat([unsqueeze_2, unsqueeze_3], dim=0)  # <<<
    sub_tensor = torch.ops.aten.sub.Tensor(cat_1, cat_2)  # <<<
    select_1 = torch.ops.aten.select(sub_tensor, 0, 1)  # <<<
    select = torch.ops.aten.select(sub_tensor, 0, 0)  # <<<
    cat = torch.ops.aten.cat.default([select, select_1])
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0])))
        print('after', after(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0])))
