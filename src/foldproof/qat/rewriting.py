"""Changing a program: new constants that know how they are computed from the old ones, and calls that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node

from foldproof.fusion.nodes import is_edge, operator_of
from foldproof.fusion.surgery import Host
from foldproof.operators import to_edge
from foldproof.qat.image import Image, Leaves, Sizes
from foldproof.qat.region import region

Recipe = Callable[[Leaves], Tensor]


@dataclass(frozen=True)
class Claim:
    """What is to be proved of one rewrite: two programs of one input, and how the new constants are computed.

    ``before`` is without the quantizations that were left out, ``after`` without those that were moved.
    """

    before: GraphModule
    after: GraphModule
    shape: torch.Size
    dtype: torch.dtype
    derive: Callable[[Leaves], dict[str, Tensor]]


class Rewriting:
    """The rewrite of one host: its image before, and the constants that came in since."""

    def __init__(self, host: Host, sizes: Sizes) -> None:
        self.host, self.image = host, Image(host, sizes)
        self.names: dict[Node, str] = {}
        self._recipes: dict[str, Recipe] = {}
        self._hosts = {twin: node for node, twin in self.image.twins.items()}
        self._successors: dict[Node, Node] = {}
        self._is_edge = any(is_edge(node) for node in host.graph.nodes if operator_of(node) is not None)

    def now(self, node: Node) -> Node:
        """The host's node that holds what ``node`` of the image held."""
        found: Node = self._hosts[node]
        while found in self._successors:
            found = self._successors[found]
        return found

    def constant(self, base: str, recipe: Recipe, dtype: torch.dtype, like: Node | None = None) -> Node:
        """The node of a new constant: computed in float64, and rounded once to ``dtype``.

        It is of the kind (parameter or buffer) of ``like``, a constant of the host; a buffer where there is one.
        """
        with torch.no_grad():
            value = recipe(self.image.tensors).detach().to(dtype).contiguous()
        names = self.host.constants.names
        if like is None:
            buffers = [n for n in names if not isinstance(self.host.constants.tensors[names[n]], nn.Parameter)]
            like = (buffers or list(names))[0]
        model = self.host.constants.tensors[names[like]]
        if isinstance(model, nn.Parameter):
            value = nn.Parameter(value, requires_grad=model.requires_grad and dtype.is_floating_point)
        name = self._free(base)
        node = self.host.insert(name, value, like)
        self.host.constants.names[node], self.host.constants.tensors[name] = name, value
        fake = like.meta.get("val")
        if isinstance(fake, FakeTensor):
            with fake.fake_mode:
                node.meta["val"] = torch.empty(value.shape, dtype=dtype, device=value.device)
        self._recipes[name], self.names[node] = recipe, name
        return node

    def _free(self, base: str) -> str:
        number, name = 0, base
        while name in self._recipes or not self.host.is_free(name):
            number, name = number + 1, f"{base}_{number + 1}"
        return name

    def call(self, before: Node, target: OpOverload, *args: Any) -> Node:
        """A new call just before another node, of the same origin."""
        with self.host.graph.inserting_before(before):
            node = self.host.graph.call_function(target, args)
        node.meta = {key: before.meta[key] for key in ("nn_module_stack", "stack_trace") if key in before.meta}
        values = [a.meta.get("val") if isinstance(a, Node) else a for a in args]
        fakes = [v for v in values if isinstance(v, FakeTensor)]
        if fakes and all(v is not None for v in values):
            with fakes[0].fake_mode:
                node.meta["val"] = target(*values)
        if self._is_edge:
            node.target = to_edge(target)
        return node

    def succeed(self, node: Node, other: Node) -> None:
        """Makes all readers of a node of the host read another one, which takes its place."""
        node.replace_all_uses_with(other)
        self._successors[node] = other

    def claim(self, before: Node, after: Node, data: Node, dtype: torch.dtype, instead: Mapping[Node, Node]) -> Claim:
        """That the image's node ``before`` and the host's node ``after`` are the same function of the image's ``data``.

        What the image holds in the nodes of ``instead`` is taken for the nodes that they map to.
        """
        image, held = self.image, self.host.constants
        sizes = {self.now(node): size for node, size in image.numbers.items()}
        names, tensors = image.names | held.names, {**image.tensors, **held.tensors}
        first = region(before, data, names, tensors, {**image.numbers, **instead})
        second = region(after, self.now(data), held.names, held.tensors, sizes)
        read = {str(node.target) for node in second.graph.nodes if node.op == "get_attr"}
        new = {name: recipe for name, recipe in self._recipes.items() if name in read}
        return Claim(first, second, image.shape(data), dtype, lambda leaves: {name: new[name](leaves) for name in new})

    def finish(self) -> Any:
        """The rewritten program, without what nothing reads any more."""
        for node in reversed(list(self.host.graph.nodes)):
            if node.op == "call_function" and not node.users and not node.is_impure():
                self.host.graph.erase_node(node)
        return self.host.finish({old.name: new.name for old, new in self._successors.items()})
