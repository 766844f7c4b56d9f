import torch, torch.nn as nn, torch.nn.functional as F
class Model(nn.Module):
    def forward(self, x):
        return F.max_pool2d_with_indices(x.transpose(2, 3), 2, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=True)
model, inputs = Model().eval(), ((torch.arange(4.) * 37 % 101).reshape(1, 1, 2, 2),)
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
