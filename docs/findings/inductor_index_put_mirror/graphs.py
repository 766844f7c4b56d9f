"""The graph before and after scheduling. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1, arg1_1):
    loop_1 = torch.ops.aten.reshape.default(arg1_1, [2])  # <<<
    buf0 = torch.ops.aten.arange.default(2, dtype=torch.int64)  # <<<
    buf0_1 = torch.ops.aten.reshape.default(loop_1, [2, 1])
    buf0_2 = torch.ops.aten.reshape.default(buf0_1, [2])  # <<<
    buf1 = torch.ops.aten.full.default([1], 1, dtype=torch.int64)  # <<<
    buf1_1 = torch.ops.aten.mul.Tensor(buf0, -1)  # <<<
    buf1_2 = torch.ops.aten.add.Tensor(buf1, buf1_1)  # <<<
    buf1_3 = torch.ops.aten.index.Tensor(buf0_2, [buf1_2])  # <<<
    buf2 = torch.ops.aten.reshape.default(buf0_2, [2, 1])
    buf2_1 = torch.ops.aten.reshape.default(buf2, [2])  # <<<
    buf2_2 = torch.ops.aten.reshape.default(buf1_3, [2, 1])  # <<<
    buf2_3 = torch.ops.aten.reshape.default(buf2_2, [2])  # <<<
    buf2_4 = torch.ops.aten.add.Tensor(buf2_1, buf2_3)  # <<<
    buf3 = torch.ops.aten.reshape.default(buf2_4, [2, 1])  # <<<
    buf3_1 = torch.ops.aten.reshape.default(buf3, [2])  # <<<
    loop_2 = torch.ops.aten.reshape.default(buf3_1, [2, 1])  # <<<
    arg0_1_written = torch.ops.aten.copy_.default(arg0_1, loop_2)
    return (buf2_2,)


def after(arg0_1, arg1_1):
    loop_2 = torch.ops.aten.full.default([], 1.7340164184570312, dtype=torch.float32)  # <<<
    loop_3 = torch.ops.aten.expand.default(loop_2, [2])  # <<<
    loop_4 = torch.ops.aten.reshape.default(loop_3, [2, 1])
    loop_5 = torch.ops.aten.full.default([], 1.5560531616210938, dtype=torch.float32)  # <<<
    loop_6 = torch.ops.aten.expand.default(loop_5, [2])  # <<<
    loop_7 = torch.ops.aten.reshape.default(loop_6, [2, 1])
    arg0_1_written = torch.ops.aten.copy_.default(arg0_1, loop_7)
    return (loop_4,)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [1.0]])))
        print('after', after(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [1.0]])))
