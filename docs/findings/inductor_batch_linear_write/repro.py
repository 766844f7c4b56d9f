import torch, torch.nn as nn, torch.nn.functional as F, copy, torch._inductor.config
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers_0_weight, self.layers_1_weight, self.layers_2_weight, self.layers_3_weight, self.layers_4_weight = (nn.Parameter(torch.empty(1, 1)) for _ in range(5))
    def forward(self, x):
        linear = F.linear(x, self.layers_0_weight)
        linear_1 = F.linear(x, self.layers_1_weight)
        x.add_(1)
        return torch.cat([linear, linear_1, F.linear(x, self.layers_2_weight), F.linear(x, self.layers_3_weight), F.linear(x, self.layers_4_weight)])
model, inputs = Model().eval(), (torch.ones(1, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
torch._inductor.config.pre_grad_fusion_options = {'batch_linear': {}}
got = torch.no_grad()(torch.compile(copy.deepcopy(model)))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
