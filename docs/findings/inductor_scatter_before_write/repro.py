import torch, torch.nn as nn, copy
class Model(nn.Module):
    def forward(self, x, y_1):
        slice_scatter = torch.slice_scatter(x, y_1, 0, 1)
        x.zero_()
        return slice_scatter
model, inputs = Model().eval(), (torch.ones(2, 1), torch.ones(1, 1))
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
