import torch, torch.nn as nn, torch._inductor.config
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.of = nn.Dropout()
    def forward(self, x, y_1):
        return torch.cat([(self.of(x) * 3), (self.of(y_1) * 3)])
model, inputs = Model().eval(), (torch.ones(1), torch.ones(1))
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
torch._inductor.config.pre_grad_fusion_options = {'batch_dropout': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
