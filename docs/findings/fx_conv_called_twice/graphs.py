"""The graph before and after fuse. Lines marked <<< have no equal in the other."""

import operator

import torch
import torch.nn.functional as F
from torch import nn


def before(x, y):
    conv = torch.func.functional_call(nn.Conv2d(2, 2, kernel_size=(2, 2), stride=(1, 1)).eval(), {'weight': torch.tensor([[[[1.0, 1.0666667222976685], [1.1333333253860474, 1.2000000476837158]], [[1.2666666507720947, 1.3333333730697632], [1.399999976158142, 1.4666666984558105]]], [[[1.5333333015441895, 1.600000023841858], [1.6666666269302368, 1.7333333492279053]], [[1.7999999523162842, 1.8666666746139526], [1.9333332777023315, 2.0]]]]), 'bias': torch.tensor([1.0, 3.0])}, (x,))  # <<<
    first = torch.func.functional_call(nn.BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True).eval(), {'weight': torch.tensor([1.0, 4.0]), 'bias': torch.tensor([1.0, 5.0]), 'running_mean': torch.tensor([1.0, 6.0]), 'running_var': torch.tensor([1.0, 7.0]), 'num_batches_tracked': torch.tensor(1)}, (conv,))  # <<<
    conv_1 = torch.func.functional_call(nn.Conv2d(2, 2, kernel_size=(2, 2), stride=(1, 1)).eval(), {'weight': torch.tensor([[[[1.0, 1.0666667222976685], [1.1333333253860474, 1.2000000476837158]], [[1.2666666507720947, 1.3333333730697632], [1.399999976158142, 1.4666666984558105]]], [[[1.5333333015441895, 1.600000023841858], [1.6666666269302368, 1.7333333492279053]], [[1.7999999523162842, 1.8666666746139526], [1.9333332777023315, 2.0]]]]), 'bias': torch.tensor([1.0, 3.0])}, (y,))  # <<<
    add = operator.add(first, conv_1)  # <<<
    return add


def after(x, y):
    conv = torch.func.functional_call(nn.Conv2d(2, 2, kernel_size=(2, 2), stride=(1, 1)).eval(), {'weight': torch.tensor([[[[0.9999949932098389, 1.0666613578796387], [1.133327603340149, 1.1999940872192383]], [[1.2666603326797485, 1.3333266973495483], [1.3999929428100586, 1.4666593074798584]]], [[[2.3181803226470947, 2.418970823287964], [2.519761323928833, 2.620551824569702]], [[2.721342086791992, 2.8221325874328613], [2.9229230880737305, 3.0237135887145996]]]]), 'bias': torch.tensor([1.0, 0.4644298553466797])}, (x,))  # <<<
    conv_1 = torch.func.functional_call(nn.Conv2d(2, 2, kernel_size=(2, 2), stride=(1, 1)).eval(), {'weight': torch.tensor([[[[0.9999949932098389, 1.0666613578796387], [1.133327603340149, 1.1999940872192383]], [[1.2666603326797485, 1.3333266973495483], [1.3999929428100586, 1.4666593074798584]]], [[[2.3181803226470947, 2.418970823287964], [2.519761323928833, 2.620551824569702]], [[2.721342086791992, 2.8221325874328613], [2.9229230880737305, 3.0237135887145996]]]]), 'bias': torch.tensor([1.0, 0.4644298553466797])}, (y,))  # <<<
    add = operator.add(conv, conv_1)  # <<<
    return add


if __name__ == "__main__":
    with torch.no_grad():
        print('before', before(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]])))
        print('after', after(torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]])))
