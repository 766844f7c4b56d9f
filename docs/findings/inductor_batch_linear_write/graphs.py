"""The graph before and after batch_linear. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_):
    l_self_parameters_layers_0_weight_ = torch.tensor([[1.0]])  # layers_0_weight
    l_self_parameters_layers_1_weight_ = torch.tensor([[1.0]])  # layers_1_weight
    l_self_parameters_layers_2_weight_ = torch.tensor([[1.0]])  # layers_2_weight
    l_self_parameters_layers_3_weight_ = torch.tensor([[1.0]])  # layers_3_weight
    l_self_parameters_layers_4_weight_ = torch.tensor([[1.0]])  # layers_4_weight
    linear = F.linear(l_x_, l_self_parameters_layers_0_weight_)  # <<<
    linear_1 = F.linear(l_x_, l_self_parameters_layers_1_weight_)  # <<<
    add_ = l_x_.add_(1)
    linear_2 = F.linear(l_x_, l_self_parameters_layers_2_weight_)  # <<<
    linear_3 = F.linear(l_x_, l_self_parameters_layers_3_weight_)  # <<<
    linear_4 = F.linear(l_x_, l_self_parameters_layers_4_weight_)  # <<<
    cat = torch.cat([linear, linear_1, linear_2, linear_3, linear_4])  # <<<
    return (cat,)


def after(l_x_):
    l_self_parameters_layers_0_weight_ = torch.tensor([[1.0]])  # layers_0_weight
    l_self_parameters_layers_1_weight_ = torch.tensor([[1.0]])  # layers_1_weight
    l_self_parameters_layers_2_weight_ = torch.tensor([[1.0]])  # layers_2_weight
    l_self_parameters_layers_3_weight_ = torch.tensor([[1.0]])  # layers_3_weight
    l_self_parameters_layers_4_weight_ = torch.tensor([[1.0]])  # layers_4_weight
    stack = torch.stack([l_x_, l_x_, l_x_, l_x_, l_x_], dim=0)  # <<<
    stack_1 = torch.stack([l_self_parameters_layers_0_weight_, l_self_parameters_layers_1_weight_, l_self_parameters_layers_2_weight_, l_self_parameters_layers_3_weight_, l_self_parameters_layers_4_weight_], dim=0)  # <<<
    transpose = torch.transpose(stack_1, 1, 2)  # <<<
    bmm = torch.bmm(stack, transpose)  # <<<
    unbind = torch.unbind(bmm, dim=0)  # <<<
    getitem_4 = operator.getitem(unbind, 4)  # <<<
    getitem_3 = operator.getitem(unbind, 3)  # <<<
    getitem_2 = operator.getitem(unbind, 2)  # <<<
    getitem_1 = operator.getitem(unbind, 1)  # <<<
    getitem = operator.getitem(unbind, 0)  # <<<
    add_ = l_x_.add_(1)
    cat = torch.cat([getitem, getitem_1, getitem_2, getitem_3, getitem_4])  # <<<
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0]])))
        print('after', after(torch.tensor([[1.0]])))
