"""The graph before and after constant_fold. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before():
    count = torch.tensor([1.0])  # count  # <<<
    add_ = torch.ops.aten.add_.Tensor(count, 1)  # <<<
    return (add_,)


def after():
    count = torch.tensor([2.0])  # count  # <<<
    add_ = torch.ops.aten.add_.Tensor(count, 1)  # <<<
    return (add_,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before())
        print('after', after())
