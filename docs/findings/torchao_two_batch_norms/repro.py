import torch, torch.nn as nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer
model, inputs = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)).eval(), (torch.ones(1, 1, 1, 1),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
got = convert_pt2e(prepare_pt2e(torch.export.export(model, inputs).module(), X86InductorQuantizer()))(*inputs)
torch.testing.assert_close(got, model(*inputs))
