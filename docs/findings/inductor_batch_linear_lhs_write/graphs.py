"""The graph before and after batch_linear_lhs. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_):
    l_self_modules_first_parameters_weight_ = torch.tensor([[1.0]])  # first.weight
    l_self_modules_first_parameters_bias_ = torch.tensor([1.0])  # first.bias
    l_self_modules_second_parameters_weight_ = torch.tensor([[1.0]])  # second.weight
    l_self_modules_second_parameters_bias_ = torch.tensor([1.0])  # second.bias
    first = F.linear(l_x_, l_self_modules_first_parameters_weight_, l_self_modules_first_parameters_bias_)  # <<<
    add_ = l_x_.add_(1)
    second = F.linear(l_x_, l_self_modules_second_parameters_weight_, l_self_modules_second_parameters_bias_)  # <<<
    cat = torch.cat([first, second])
    return (cat,)


def after(l_x_):
    l_self_modules_first_parameters_weight_ = torch.tensor([[1.0]])  # first.weight
    l_self_modules_first_parameters_bias_ = torch.tensor([1.0])  # first.bias
    l_self_modules_second_parameters_weight_ = torch.tensor([[1.0]])  # second.weight
    l_self_modules_second_parameters_bias_ = torch.tensor([1.0])  # second.bias
    cat_1 = torch.cat([l_self_modules_first_parameters_weight_, l_self_modules_second_parameters_weight_], dim=0)  # <<<
    transpose = torch.transpose(cat_1, 0, 1)  # <<<
    cat_2 = torch.cat([l_self_modules_first_parameters_bias_, l_self_modules_second_parameters_bias_], dim=0)  # <<<
    addmm = torch.addmm(cat_2, l_x_, transpose)  # <<<
    split = torch.split(addmm, [1, 1], dim=1)  # <<<
    getitem_1 = operator.getitem(split, 1)  # <<<
    getitem = operator.getitem(split, 0)  # <<<
    add_ = l_x_.add_(1)
    cat = torch.cat([getitem, getitem_1])
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0]])))
        print('after', after(torch.tensor([[1.0]])))
