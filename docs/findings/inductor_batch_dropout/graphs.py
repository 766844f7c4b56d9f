"""The graph before and after batch_dropout. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_, l_y_):
    of = F.dropout(l_x_, 0.5, False, False)  # <<<
    mul_1 = operator.mul(of, 3)
    of_1 = F.dropout(l_y_, 0.5, False, False)  # <<<
    mul_2 = operator.mul(of_1, 3)
    cat = torch.cat([mul_1, mul_2])
    return (cat,)


def after(l_x_, l_y_):
    stack = torch.stack([l_x_, l_y_], dim=0)  # <<<
    dropout_2 = F.dropout(stack)  # <<<
    unbind = torch.unbind(dropout_2, dim=0)  # <<<
    getitem_1 = operator.getitem(unbind, 1)  # <<<
    getitem = operator.getitem(unbind, 0)  # <<<
    mul_1 = operator.mul(getitem, 3)
    mul_2 = operator.mul(getitem_1, 3)
    cat = torch.cat([mul_1, mul_2])
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([1.0]), torch.tensor([1.0])))
        print('after', after(torch.tensor([1.0]), torch.tensor([1.0])))
