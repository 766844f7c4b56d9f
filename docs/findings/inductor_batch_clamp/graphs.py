"""The graph before and after batch_clamp. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_, l_y_):
    clamp = torch.clamp(l_x_, -1, max=1)  # <<<
    mul_1 = operator.mul(clamp, 3)
    clamp_1 = torch.clamp(l_y_, 0, max=1)  # <<<
    mul_2 = operator.mul(clamp_1, 3)
    cat = torch.cat([mul_1, mul_2])
    return (cat,)


def after(l_x_, l_y_):
    stack = torch.stack([l_x_, l_y_], dim=0)  # <<<
    clamp_2 = torch.clamp(stack, max=1)  # <<<
    unbind = torch.unbind(clamp_2, dim=0)  # <<<
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
