import torch, torch.nn as nn, copy
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('count', torch.empty(1))
    def forward(self):
        add_ = torch.ops.aten.add_.Tensor(self.count, 1)
        return add_
model, inputs = Model().eval(), ()
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
got = convert_pt2e(prepare_pt2e(torch.export.export(copy.deepcopy(model), inputs).module(), X86InductorQuantizer()))(*copy.deepcopy(inputs))
torch.testing.assert_close(got, model(*copy.deepcopy(inputs)))
