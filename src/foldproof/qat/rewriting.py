"""Changing a program: new constants that know how they are computed from the old ones, and calls that read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from foldproof.qat.host import Host
from foldproof.qat.image import Image, Leaves

Recipe = Callable[[Leaves], Tensor]


@dataclass
class Rewriting:
    """One rewrite of a host: its image before, and the constants that came in since."""

    host: Host
    image: Image
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def constant(self, base: str, recipe: Recipe, dtype: torch.dtype) -> Node:
        """The node of a new constant: computed in float64, and rounded once to ``dtype``."""
        with torch.no_grad():
            value = recipe(self.image.tensors).detach().to(dtype).contiguous()
        name, node = self.host.add(base, value)
        self.recipes[name] = recipe
        return node

    def call(self, before: Node, target: OpOverload, *args: Any) -> Node:
        """A new call just before another node, of the same origin."""
        with self.host.graph.inserting_before(before):
            node = self.host.graph.call_function(target, args)
        node.meta = {key: before.meta[key] for key in ("nn_module_stack", "stack_trace") if key in before.meta}
        values = [a.meta.get("val") if isinstance(a, Node) else a for a in args]
        fakes = [v for v in values if hasattr(v, "fake_mode")]
        if fakes and all(v is not None for a, v in zip(args, values) if isinstance(a, Node)):
            with fakes[0].fake_mode:
                node.meta["val"] = target(*values)
        return node

    def derive(self, leaves: Leaves) -> dict[str, Tensor]:
        """The new constants, computed from the program's own as it was before."""
        return {name: recipe(leaves) for name, recipe in self.recipes.items()}
