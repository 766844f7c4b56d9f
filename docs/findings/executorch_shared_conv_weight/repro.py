import torch, torch.nn as nn, executorch.exir
from executorch.runtime import Runtime
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(2, 2, 2), nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    def forward(self, x, y):
        return (self.first(self.conv(x)) + self.second(self.conv(y)))
model, inputs = Model().eval(), (torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2))
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
edge = executorch.exir.to_edge_transform_and_lower(torch.export.export(model, inputs), partitioner=[XnnpackPartitioner()])
program = Runtime.get().load_program(buffer := edge.to_executorch().buffer)
got = program.load_method("forward").execute(inputs)[0]
torch.testing.assert_close(got, model(*inputs))
