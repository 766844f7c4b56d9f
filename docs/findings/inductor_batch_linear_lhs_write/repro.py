import torch, torch.nn as nn, copy, torch._inductor.config
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)
    def forward(self, x):
        first = self.first(x)
        x.add_(1)
        return torch.cat([first, self.second(x)])
model, inputs = Model().eval(), (torch.ones(1, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
torch._inductor.config.pre_grad_fusion_options = {'batch_linear_lhs': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
