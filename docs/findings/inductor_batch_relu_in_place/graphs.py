"""The graph before and after batch_relu. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(l_x_, l_y_):
    relu = F.relu(l_x_, inplace=True)  # <<<
    add = operator.add(relu, l_x_)
    relu_1 = F.relu(l_y_, inplace=True)  # <<<
    cat = torch.cat([add, relu_1])
    return (cat,)


def after(l_x_, l_y_):
    stack = torch.stack([l_y_, l_x_], dim=0)  # <<<
    relu_2 = F.relu(stack, inplace=True)  # <<<
    unbind = torch.unbind(relu_2, dim=0)  # <<<
    getitem_1 = operator.getitem(unbind, 1)  # <<<
    add = operator.add(getitem_1, l_x_)
    getitem = operator.getitem(unbind, 0)  # <<<
    cat = torch.cat([add, getitem])
    return (cat,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([-1.0]), torch.tensor([-1.0])))
        print('after', after(torch.tensor([-1.0]), torch.tensor([-1.0])))
