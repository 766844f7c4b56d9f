"""The graph before and after lowering. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(arg0_1):
    permute = torch.ops.aten.permute.default(arg0_1, [0, 1, 3, 2])  # <<<
    _low_memory_max_pool_with_offsets = torch.ops.prims._low_memory_max_pool_with_offsets.default(permute, [2, 2], [2, 2], [0, 0], [1, 1], False)  # <<<
    getitem = operator.getitem(_low_memory_max_pool_with_offsets, 0)  # <<<
    getitem_1 = operator.getitem(_low_memory_max_pool_with_offsets, 1)  # <<<
    _low_memory_max_pool_offsets_to_indices = torch.ops.prims._low_memory_max_pool_offsets_to_indices.default(getitem_1, [2, 2], [2, 2], [2, 2], [0, 0], [1, 1])  # <<<
    return (getitem, _low_memory_max_pool_offsets_to_indices)


def after(arg0_1):
    loop = torch.ops.aten.reshape.default(arg0_1, [4])  # <<<
    buf0_1 = torch.ops.aten.reshape.default(loop, [4, 1])  # <<<
    buf0_2 = torch.ops.aten.reshape.default(buf0_1, [4])  # <<<
    buf0_3 = torch.ops.aten.amax.default(buf0_2, [0], True)  # <<<
    buf1 = torch.ops.aten.reshape.default(buf0_2, [-1])  # <<<
    buf1_1 = torch.ops.aten.argmax.default(buf1, -1, True)  # <<<
    buf1_2 = torch.ops.aten.reshape.default(buf1_1, [1])  # <<<
    buf2 = torch.ops.aten.reshape.default(buf1_2, [])  # <<<
    buf2_1 = torch.ops.aten._to_copy.default(buf2, dtype=torch.int8)  # <<<
    buf2_2 = torch.ops.aten._to_copy.default(buf2_1, dtype=torch.int64)  # <<<
    buf2_3 = torch.ops.aten.add.Tensor(buf2_2, 4)  # <<<
    buf2_4 = torch.ops.aten.lt.Scalar(buf2_2, 0)  # <<<
    buf2_5 = torch.ops.aten.where.self(buf2_4, buf2_3, buf2_2)  # <<<
    buf2_6 = torch.ops.aten.ge.Scalar(buf2_5, 0)  # <<<
    buf2_7 = torch.ops.aten.full.default([], 4, dtype=torch.int64)  # <<<
    buf2_8 = torch.ops.aten.lt.Tensor(buf2_5, buf2_7)  # <<<
    buf2_9 = torch.ops.aten.logical_and.default(buf2_6, buf2_8)  # <<<
    buf2_10 = torch.ops.aten.where.ScalarOther(buf2_9, buf2_5, 1099511627776)  # <<<
    buf2_11 = torch.ops.aten.reshape.default(buf2_10, [1])  # <<<
    loop_1 = torch.ops.aten.reshape.default(buf0_3, [1, 1, 1, 1])  # <<<
    loop_2 = torch.ops.aten.reshape.default(buf2_11, [1, 1, 1, 1])  # <<<
    return (loop_1, loop_2)


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[0.0, 37.0], [74.0, 10.0]]]])))
        print('after', after(torch.tensor([[[[0.0, 37.0], [74.0, 10.0]]]])))
