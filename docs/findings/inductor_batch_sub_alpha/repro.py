import torch, torch.nn as nn, torch._inductor.config
class Model(nn.Module):
    def forward(self, y, x):
        unbind = y.unbind()
        getitem = unbind[0]
        return torch.cat([torch.sub(getitem, getitem, alpha=2), torch.sub(x, unbind[1], alpha=2)])
model, inputs = Model().eval(), (torch.ones(2, 1), torch.ones(1))
torch._inductor.config.post_grad_fusion_options = {'batch_aten_sub': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
