import torch, torch.nn as nn, torch._inductor.config
class Model(nn.Module):
    def forward(self, x, y_1):
        return torch.cat([(torch.clamp(x, -1, max=1) * 3), (torch.clamp(y_1, 0, max=1) * 3)])
model, inputs = Model().eval(), (torch.arange(-1., 1., 2).reshape(1), torch.arange(-1., 1., 2).reshape(1))
torch._inductor.config.pre_grad_fusion_options = {'batch_clamp': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
