import torch, torch.nn as nn, copy
class Model(nn.Module):
    def forward(self, x):
        _foreach_add_ = torch._foreach_add_([x], [x.flip(0)])
        return _foreach_add_
model, inputs = Model().eval(), (torch.ones(2, 1),)
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
