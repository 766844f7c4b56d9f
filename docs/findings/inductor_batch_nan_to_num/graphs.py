"""The graph before and after batch_nan_to_num. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_, l_y_):
    sqrt = l_x_.sqrt()
    nan_to_num = torch.nan_to_num(sqrt, 5.0)  # <<<
    mul_1 = operator.mul(nan_to_num, 3)
    nan_to_num_1 = torch.nan_to_num(l_y_, 5.0)  # <<<
    mul_2 = operator.mul(nan_to_num_1, 3)
    cat = torch.cat([mul_1, mul_2])
    return (cat,)


def after(l_x_, l_y_):
    sqrt = l_x_.sqrt()
    stack = torch.stack([sqrt, l_y_], dim=0)  # <<<
    nan_to_num_2 = torch.nan_to_num(stack)  # <<<
    unbind = torch.unbind(nan_to_num_2, dim=0)  # <<<
    getitem_1 = operator.getitem(unbind, 1)  # <<<
    getitem = operator.getitem(unbind, 0)  # <<<
    mul_1 = operator.mul(getitem, 3)
    mul_2 = operator.mul(getitem_1, 3)
    cat = torch.cat([mul_1, mul_2])
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([-1.0]), torch.tensor([-1.0])))
        print('after', after(torch.tensor([-1.0]), torch.tensor([-1.0])))
