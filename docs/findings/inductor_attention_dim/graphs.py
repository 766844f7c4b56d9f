"""The graph before and after ReplacementPatternEntry._sfdp_pattern_1_inference. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1):
    permute = torch.ops.aten.permute.default(arg0_1, [0, 1, 3, 2])  # <<<
    expand = torch.ops.aten.expand.default(arg0_1, [1, 1, 2, 2])  # <<<
    view = torch.ops.aten.reshape.default(expand, [1, 2, 2])  # <<<
    expand_1 = torch.ops.aten.expand.default(permute, [1, 1, 2, 2])  # <<<
    view_1 = torch.ops.aten.reshape.default(expand_1, [1, 2, 2])  # <<<
    bmm = torch.ops.aten.bmm.default(view, view_1)  # <<<
    view_2 = torch.ops.aten.reshape.default(bmm, [1, 1, 2, 2])  # <<<
    div = torch.ops.aten.div.Tensor(view_2, 2)  # <<<
    amax = torch.ops.aten.amax.default(div, [1], True)  # <<<
    sub = torch.ops.aten.sub.Tensor(div, amax)  # <<<
    exp = torch.ops.aten.exp.default(sub)  # <<<
    sum_1 = torch.ops.aten.sum.dim_IntList(exp, [1], True)  # <<<
    div_1 = torch.ops.aten.div.Tensor(exp, sum_1)  # <<<
    expand_2 = torch.ops.aten.expand.default(div_1, [1, 1, 2, 2])  # <<<
    view_3 = torch.ops.aten.reshape.default(expand_2, [1, 2, 2])  # <<<
    expand_3 = torch.ops.aten.expand.default(arg0_1, [1, 1, 2, 2])  # <<<
    view_4 = torch.ops.aten.reshape.default(expand_3, [1, 2, 2])  # <<<
    bmm_1 = torch.ops.aten.bmm.default(view_3, view_4)  # <<<
    view_5 = torch.ops.aten.reshape.default(bmm_1, [1, 1, 2, 2])  # <<<
    return (view_5,)


def after(arg0_1):
    _scaled_dot_product_flash_attention_for_cpu_default = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(arg0_1, arg0_1, arg0_1, scale=0.5)  # <<<
    getitem = operator.getitem(_scaled_dot_product_flash_attention_for_cpu_default, 0)  # <<<
    return (getitem,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])))
        print('after', after(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])))
