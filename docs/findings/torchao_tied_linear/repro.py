import torch, torch.nn as nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.first = nn.Linear(2, 2), nn.BatchNorm1d(2)
    def forward(self, x):
        return self.linear(self.first(self.linear(x)))
model, inputs = Model().eval(), (torch.ones(1, 2),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
got = convert_pt2e(prepare_pt2e(torch.export.export(model, inputs).module(), X86InductorQuantizer()))(*inputs)
torch.testing.assert_close(got, model(*inputs))
