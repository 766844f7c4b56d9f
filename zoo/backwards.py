"""Backward functions that other people wrote by hand, each with the composite that it stands for.

The composite is mostly the function's own forward, differentiated by autograd; else another implementation. Files of
packages are read by themselves, so that these need none of their requirements: ``pip install --no-deps`` is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import foldproof
from foldproof.verdict import Verdict

MASK = torch.tensor([1, 1, 0, 1])


@dataclass(frozen=True)
class Backward:
    """A function with a backward of its own.

    ``where`` is a file of the package, or a module that has to be imported. ``composite`` is None if it is the
    function's own forward. ``shapes`` are those of random inputs, which require gradients, and ``rest`` the other
    arguments. If ``first``, only the first output is compared.
    """

    package: str
    where: str
    name: str
    shapes: tuple[tuple[int, ...], ...]
    rest: tuple[Any, ...] = ()
    composite: Callable[..., Any] | None = None
    remark: str = ""
    first: bool = False
    seed: int = 0

    def prove(self) -> Verdict:
        """Compare outputs and gradients, for any loss."""
        module = _read(self.package, self.where) if self.where.endswith(".py") else importlib.import_module(self.where)
        function = getattr(module, self.name)
        own = self.composite or (lambda *args: function.forward(_Context(), *args, *self.rest))
        generator = torch.Generator().manual_seed(self.seed)
        inputs = tuple(torch.randn(shape, generator=generator).requires_grad_() for shape in self.shapes)
        sides = (own, lambda *args: function.apply(*args, *self.rest))
        before, after = ((lambda *args, f=f: f(*args)[0]) if self.first else f for f in sides)
        return foldproof.prove_step(before, after, inputs)


class _Context:
    """The place where a forward keeps values for its backward."""

    def save_for_backward(self, *kept: Any) -> None:
        """Keep nothing: autograd does."""

    mark_non_differentiable = save_for_backward


def _read(package: str, file: str) -> ModuleType:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed")
    place = Path(found.submodule_search_locations[0]) / file
    spec = importlib.util.spec_from_file_location(f"read_{package}_{place.stem}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _softmax(x: Tensor) -> Tensor:
    return torch.softmax(x.masked_fill(MASK == 0, torch.finfo(x.dtype).min), -1) * MASK


def _scan(a: Tensor, x: Tensor) -> Tensor:
    """One step after the other."""
    state, states = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        state = a[:, t] * state + x[:, t]
        states.append(state)
    return torch.stack(states, 1)


_NORM = ((2, 3, 2, 2), (3,), (3,))
_HEADS = ((1, 2, 4, 3),) * 3
BACKWARDS = (
    Backward("entmax", "activations.py", "SparsemaxFunction", ((2, 5),), (-1, None)),
    Backward("entmax", "activations.py", "Entmax15Function", ((2, 5),), (-1, None)),
    Backward("efficientnet_pytorch", "utils.py", "SwishImplementation", ((3, 4),)),
    Backward("monai", "networks/blocks/activation.py", "SwishImplementation", ((3, 4),)),
    Backward("spandrel", "architectures/OmniSR/__arch/layernorm.py", "LayerNormFunction", _NORM, (1e-6,)),
    Backward("spandrel", "architectures/KBNet/__arch/kb_utils.py", "LayerNormFunction", _NORM, (1e-6,)),
    Backward(
        "spandrel",
        "architectures/KBNet/__arch/kb_utils.py",
        "KBAFunction",
        ((1, 4, 3, 3), (1, 2, 3, 3)),
        (3, 2, torch.linspace(-1, 1, 8).reshape(2, 4), torch.linspace(-1, 2, 144).reshape(2, 72)),
        remark="gradients of two of its four operands",
    ),
    Backward("mambapy", "pscan.py", "PScan", ((1, 8, 2, 2),) * 2, composite=_scan, remark="a loop over the steps"),
    Backward(
        "memory_efficient_attention_pytorch",
        "flash_attention.py",
        "FlashAttentionFunction",
        _HEADS,
        (None, False, 2, 2),
        composite=F.scaled_dot_product_attention,
        remark="PyTorch's attention",
    ),
    Backward(
        "mlstm_kernels",
        "mlstm_kernels.torch.parallel.native.fwbw",
        "_mlstm_parallel_fwbw_float32",
        (*((1, 1, 3, 2),) * 3, *((1, 1, 3),) * 2),
        first=True,
        seed=1,
        remark="the backward leaves out the gradient of the normalizer",
    ),
    Backward("transformers", "transformers.models.bloom.modeling_bloom", "GeLUFunction", ((3, 4),)),
    Backward(
        "transformers",
        "transformers.models.sew_d.modeling_sew_d",
        "XSoftmax",
        ((3, 4),),
        (MASK, -1),
        _softmax,
        "a masked softmax",
    ),
)


def installed() -> Iterator[tuple[Backward, str]]:
    """Yield the functions of installed packages, with their versions."""
    for one in BACKWARDS:
        if importlib.util.find_spec(one.package) is not None:
            yield one, version(one.package)
