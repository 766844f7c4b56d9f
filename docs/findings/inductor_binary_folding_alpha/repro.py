import torch, torch.nn as nn, torch._inductor.config
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(1, 1, 1), nn.Parameter(torch.empty(1, 1, 1))
    def forward(self, x):
        return torch.sub(self.conv(x), self.shift, alpha=2)
model, inputs = Model().eval(), (torch.ones(1, 1, 1, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
torch._inductor.config.freezing = True
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
