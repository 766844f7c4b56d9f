import torch, torch.nn as nn, operator, openvino
class Model(nn.Module):
    def forward(self, x):
        return operator.gt(x, 0).cumsum(0)
model, inputs = Model().eval(), (torch.ones(463),)
program = openvino.convert_model(torch.export.export(model, inputs))
compiled = openvino.compile_model(program, config={'INFERENCE_PRECISION_HINT': 'f32'})
got = torch.from_numpy(compiled([x.numpy() for x in inputs])[0])
torch.testing.assert_close(got, model(*inputs))
