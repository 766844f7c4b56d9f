import torch, torch.nn as nn, torch._inductor.config
class Model(nn.Module):
    def forward(self, x, y_1):
        return torch.cat([(torch.nan_to_num(x.sqrt(), 5.0) * 3), (torch.nan_to_num(y_1, 5.0) * 3)])
model, inputs = Model().eval(), (torch.arange(-1., 1., 2).reshape(1), torch.arange(-1., 1., 2).reshape(1))
torch._inductor.config.pre_grad_fusion_options = {'batch_nan_to_num': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(model))(*inputs)
torch.testing.assert_close(got, model(*inputs))
