import torch, torch.nn as nn, executorch.exir
from executorch.runtime import Runtime
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
model, inputs = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval(), (torch.ones(1, 2, 2),)
for i, t in enumerate(model.state_dict().values()): t.copy_(torch.linspace(1, 2 + i % 7, t.numel()).view(t.shape))
edge = executorch.exir.to_edge_transform_and_lower(torch.export.export(model, inputs), partitioner=[XnnpackPartitioner()])
program = Runtime.get().load_program(buffer := edge.to_executorch().buffer)
got = program.load_method("forward").execute(inputs)[0]
torch.testing.assert_close(got, model(*inputs))
