import torch, torch.nn as nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(1, 1)), nn.Parameter(torch.empty(1))
    def forward(self, x):
        return torch.add((x @ self.weight), self.bias, alpha=2)
model, inputs = Model().eval(), (torch.ones(2, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
