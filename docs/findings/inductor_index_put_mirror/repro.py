import torch, torch.nn as nn, copy
class Model(nn.Module):
    def forward(self, x, y):
        x.index_put_((torch.arange(x.size(0)),), y)
        flip = x.flip(0)
        x.add_(flip)
        return flip
model, inputs = Model().eval(), (torch.ones(2, 1), torch.ones(2, 1))
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
