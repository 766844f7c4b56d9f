"""Changing a program: new constants that know how they are computed from the old ones, and calls that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node

from foldproof.fusion.nodes import set_operator
from foldproof.fusion.surgery import Host
from foldproof.qat.image import Image, Leaves

Recipe = Callable[[Leaves], Tensor]


class Rewriting:
    """The rewrite of one host: its image before, and the constants that came in since."""

    def __init__(self, host: Host) -> None:
        self.host, self.image = host, Image(host)
        self.recipes: dict[str, Recipe] = {}
        self.names: dict[Node, str] = {}
        self._erased: dict[str, str] = {}

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
        self.recipes[name], self.names[node] = recipe, name
        return node

    def _free(self, base: str) -> str:
        number, name = 0, base
        while name in self.recipes or not self.host.is_free(name):
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
        if type(before.target) is not OpOverload and before.op == "call_function":
            set_operator(node, target)
        return node

    def bypass(self, node: Node, operand: Node) -> None:
        """Makes all readers of a node read what it reads itself."""
        node.replace_all_uses_with(operand)
        self._erased[node.name] = operand.name

    def finish(self) -> Any:
        """The rewritten program, without what nothing reads any more."""
        for node in reversed(list(self.host.graph.nodes)):
            if node.op == "call_function" and not node.users and not node.is_impure():
                self.host.graph.erase_node(node)
        return self.host.finish(self._erased)

    def derive(self, leaves: Leaves) -> dict[str, Tensor]:
        """The new constants, computed from the program's own as it was before."""
        with torch.no_grad():
            return {name: recipe(leaves) for name, recipe in self.recipes.items()}
