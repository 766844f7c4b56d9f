import torch, torch.nn as nn
from torch.fx.experimental.optimization import fuse
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.first = nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2)
    def forward(self, x, y):
        return (self.first(self.conv(x)) + self.conv(y))
model, inputs = Model().eval(), (torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2))
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
got = fuse(model)(*inputs)
torch.testing.assert_close(got, model(*inputs))
