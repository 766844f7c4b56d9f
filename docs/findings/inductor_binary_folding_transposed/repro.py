import torch, torch.nn as nn, torch._inductor.config
model, inputs = nn.Sequential(nn.ConvTranspose2d(2, 2, 1), nn.BatchNorm2d(2)).eval(), (torch.ones(1, 2, 1, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
torch._inductor.config.freezing = True
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
