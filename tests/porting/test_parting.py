"""A refuted port names the first modules whose outputs part, and what the conversion did to the weights there."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foldproof
from foldproof import Kind
from foldproof.porting.trace import name_movement
from tests.porting.models import WIDTH, Attention, Port, Reference, X, convert


def parted(port: nn.Module, reference: nn.Module | None = None) -> foldproof.Verdict:
    torch.manual_seed(0)
    verdict = foldproof.prove(reference or Reference().eval(), port, (X,), convert=convert)
    assert verdict.kind is Kind.REFUTED and verdict.difference is not None and verdict.difference.after, verdict
    return verdict


def test_an_inner_module() -> None:
    port = Port().eval()
    port.mlp[1] = nn.GELU(approximate="tanh")
    reference = Reference().eval()
    reference.act = nn.GELU()
    reference.forward = lambda x: second_half(reference, x)  # type: ignore[method-assign]
    difference = parted(port, reference).difference
    assert difference is not None and difference.after is not None
    assert (difference.node, difference.operator) == ("act", "GELU")
    assert (difference.after.node, difference.after.operator) == ("mlp.1", "GELU")
    assert difference.frontier == (("up", "mlp.0"),)


def second_half(block: Reference, x: Tensor) -> Tensor:
    h = block.norm(x)
    q, k, v = (f(h).unflatten(-1, (2, -1)).transpose(1, 2) for f in (block.q, block.k, block.v))
    x = x + block.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return x + block.down(block.act(block.up(x)))


def test_a_module_that_has_no_counterpart_is_paired_with_one_around_it() -> None:
    class Scaled(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, scale=0.3)
            return self.out(mixed.transpose(1, 2).flatten(2))

    port = Port().eval()
    port.attn = Scaled()
    verdict = parted(port)
    difference = verdict.difference
    assert difference is not None and difference.after is not None
    assert difference.after.node == "attn" and difference.frontier == (("norm", "ln"),)
    assert "the conversion: attn.qkv.weight is q.weight, k.weight, v.weight by cat" in verdict.notes
    assert "the conversion: attn.out.bias is o.bias" in verdict.notes


def test_between_modules() -> None:
    class Doubled(Port):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 2 * self.attn(self.ln(x))
            return x + self.mlp(x)

    difference = parted(Doubled().eval()).difference
    assert difference is not None and difference.after is not None
    assert difference.node == difference.after.node == "the whole model"
    assert difference.frontier == (("o", "attn.out"),)


def test_movements_have_names() -> None:
    x = torch.randn(4, 6)
    for made, name in (
        (x, ""),
        (x.T, "transposed"),
        (x.flip(0), "with its rows in another order"),
        (x[1:3], "from row 1 to 2"),
        (x.flip(1), ""),
        (x * 2, ""),
        (torch.ones(4, 6), ""),
    ):
        assert name_movement(made, x) == name
    ones = torch.ones(4, 6)
    assert name_movement(ones[1:3], ones) == ""


def test_a_permutation_is_told() -> None:
    def permuted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        out = convert(state)
        out["attn.out.weight"] = state["o.weight"].view(2, WIDTH // 2, WIDTH).flip(1).reshape(WIDTH, WIDTH)
        return out

    verdict = foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=permuted)
    assert verdict.kind is Kind.REFUTED
    assert "the conversion: attn.out.weight is o.weight with its rows in another order" in verdict.notes
