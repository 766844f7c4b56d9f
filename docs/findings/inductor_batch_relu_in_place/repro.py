import torch, torch.nn as nn, torch.nn.functional as F, copy, torch._inductor.config
class Model(nn.Module):
    def forward(self, x, y_1):
        relu = F.relu(x, inplace=True)
        add = (relu + x)
        relu_1 = F.relu(y_1, inplace=True)
        return torch.cat([add, relu_1])
model, inputs = Model().eval(), (torch.arange(-1., 1., 2).reshape(1), torch.arange(-1., 1., 2).reshape(1))
torch._inductor.config.pre_grad_fusion_options = {'batch_relu': {'min_fuse_set_size': 2}}
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
