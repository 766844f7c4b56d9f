"""The graph before and after lowering. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1):
    rev = torch.ops.prims.rev.default(arg0_1, [0])  # <<<
    _foreach_add = torch.ops.aten._foreach_add_.List([arg0_1], [rev])  # <<<
    return (arg0_1,)


def after(arg0_1):
    loop_1 = torch.ops.aten.full.default([], 1.5560531616210938, dtype=torch.float32)  # <<<
    loop_2 = torch.ops.aten.expand.default(loop_1, [2])  # <<<
    loop_3 = torch.ops.aten.reshape.default(loop_2, [2, 1])  # <<<
    arg0_1_written = torch.ops.aten.copy_.default(arg0_1, loop_3)  # <<<
    return (loop_3,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0], [1.0]])))
        print('after', after(torch.tensor([[1.0], [1.0]])))
