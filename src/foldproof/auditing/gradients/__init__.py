"""Audits of training: Dynamo's graph with its gradients, the joint graph in two halves, and the numbers of a step.

With gradients, AOTAutograd traces a graph and its backward into one *joint graph*, of which a partitioner makes two
halves: the forward returns what the backward needs, and the backward computes some values again. Each is compiled by
itself. The steps of an audit follow these graphs:

* **AOTAutograd**: Dynamo's graph, differentiated by PyTorch's autograd while the proof runs → the joint graph
  (`differentiated`).
* the joint passes, as any others.
* **partition**: the joint graph → its two halves, one called with the results of the other (`halves`).
* the last passes, the lowering and the scheduling of each half, as any others.
* with an optimizer, the graph of its compiled step, from Dynamo's on (`update`); its parameters, gradients and state
  are inputs of that graph.

Cotangents, which are the gradients of a loss with respect to the outputs, are inputs of all these graphs, so that a
proof is for any loss. The numbers of a compiled step are compared for some cotangents (`step`).
"""

from foldproof.auditing.gradients.differentiated import Leaf, Plan, list_cotangents, read_plan
from foldproof.auditing.gradients.halves import BACKWARD, FORWARD, OPTIMIZER, PARTS, Half, compose, list_names, split
from foldproof.auditing.gradients.step import TrainedCall
from foldproof.auditing.gradients.update import MakeOptimizer

__all__ = [
    "BACKWARD",
    "FORWARD",
    "OPTIMIZER",
    "PARTS",
    "Half",
    "Leaf",
    "MakeOptimizer",
    "Plan",
    "TrainedCall",
    "compose",
    "list_cotangents",
    "list_names",
    "read_plan",
    "split",
]
