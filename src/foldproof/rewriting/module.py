"""A GraphModule under edit: its parameters are attributes, read by get_attr nodes."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from foldproof.program.state import owned
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.functional import make_functional, make_in_place
from foldproof.rewriting.plain import drop_idle, inline_regions


class ModuleHost:
    """A host that changes ``module`` itself."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.graph = module.graph
        self.subgraphs: nn.Module = module
        tensors: dict[str, Tensor] = {}
        names: dict[Node, str] = {}
        for node in self.graph.nodes:
            if node.op == "get_attr":
                found = operator.attrgetter(str(node.target))(module)
                if isinstance(found, Tensor):
                    tensors[str(node.target)], names[node] = found, str(node.target)
        inlined = inline_regions(self.graph, module, {node: tensors[name] for node, name in names.items()})
        self._in_place = make_functional(self.graph)
        self.constants = Constants(self.graph, module, tensors, names)
        self.simplified = drop_idle(self.graph, self.constants) or inlined

    def is_free(self, name: str) -> bool:
        """True if a new constant may have this name."""
        owner, _, attribute = name.rpartition(".")
        return name not in self.constants.tensors and not hasattr(self.module.get_submodule(owner), attribute)

    def insert(self, name: str, tensor: Tensor, like: Node) -> Node:
        """Insert a get_attr node for a new constant, an attribute of the module that holds ``like``'s."""
        owner, _, attribute = name.rpartition(".")
        home = self.module.get_submodule(owner)
        if isinstance(tensor, nn.Parameter):
            home.register_parameter(attribute, tensor)
        else:
            home.register_buffer(attribute, tensor)
        body = next(node for node in self.graph.nodes if node.op != "placeholder")  # before every possible reader
        with self.graph.inserting_before(body):
            return self.graph.get_attr(name)

    def finish(self, erased: Mapping[str, str]) -> GraphModule:
        """Return the module, without the constants that only erased nodes read."""
        make_in_place(self.graph, self._in_place)
        read_before = set(self.constants.names.values())
        for node in list(self.constants.names):
            if not node.users:
                self.graph.erase_node(node)
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for name, _ in list(owned(self.module)):
            if name in read_before - read:
                owner, _, attribute = name.rpartition(".")
                delattr(self.module.get_submodule(owner), attribute)
        self.module.recompile()
        return self.module
