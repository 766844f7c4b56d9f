"""Checks of programs on a device: ``python -m tests.devices.checks cuda``, or ``far``, which every machine has.

It prints the name of each check, and "ok" or what went wrong, and ends with status 1 unless all are ok.
"""

from __future__ import annotations

import copy
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof.auditing.copies import Copies
from foldproof.verdict import Kind

Check = Callable[[str], None]
CHECKS: dict[str, Check] = {}


def check(one: Check) -> Check:
    """Enter a check under its name."""
    CHECKS[one.__name__] = one
    return one


class Attention(nn.Module):
    """Causal attention by hand, or as PyTorch has it."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.embedding, self.norm = nn.Embedding(10, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.embedding(tokens))
        q, k, v = self.qkv(x).view(*tokens.shape, 3, 2, 8).permute(2, 0, 3, 1, 4)
        if self.by_hand:
            y = (q @ k.mT / 8**0.5).masked_fill(~self.mask, float("-inf")).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class Counting(nn.Module):
    """A buffer that is written to, and operators that need helper tensors: positions, masks, orders."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        back = torch.arange(3, device=x.device).flip(0)
        y = torch.where(x > 0, x * self.calls, x[:, back]).sort(-1).values.cumsum(-1)
        return F.max_pool1d(y.unsqueeze(1), 2).squeeze(1) + F.pad(y, (1, 0))[:, :2].amax(-1, keepdim=True)


def network(device: str) -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(*layers, nn.Softmax(-1)).eval().to(device), (torch.randn(1, 3, 4, 4).to(device),)


def attention(device: str) -> tuple[nn.Module, nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    one, other = Attention(True).eval().to(device), Attention(False).eval().to(device)
    other.load_state_dict(one.state_dict())
    return one, other, (torch.randint(0, 10, (2, 5)).to(device),)


def changed(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    list(other.parameters())[-2].data[0] += 0.5
    return other


def judged(found: Any, kind: Kind) -> None:
    assert found.kind is kind, str(found)


@check
def a_right_pair_is_proved(device: str) -> None:
    one, other, inputs = attention(device)
    found = foldproof.prove(one, other, inputs)  # PyTorch's own attention rounds roots of the scale
    assert found.kind in (Kind.PROVED, Kind.PROVED_WITHIN), str(found)


@check
def a_wrong_pair_is_refuted_by_numbers(device: str) -> None:
    model, inputs = network(device)
    found = foldproof.prove(model, changed(model), inputs)
    judged(found, Kind.REFUTED)
    assert found.counterexample is not None


@check
def helper_tensors_are_on_the_device_of_the_program(device: str) -> None:
    judged(foldproof.prove(Counting().to(device), Counting().to(device), (torch.randn(2, 3).to(device),)), Kind.PROVED)


@check
def a_fold_is_proved_and_stays_on_the_device(device: str) -> None:
    model, inputs = network(device)
    folded = foldproof.fuse(model, inputs)
    judged(folded.verdict, Kind.PROVED)
    made = folded.program.module() if hasattr(folded.program, "module") else folded.program
    assert {x.device.type for x in made.state_dict().values()} == {device}
    torch.testing.assert_close(made(*inputs).cpu(), model(*inputs).cpu(), rtol=1e-3, atol=1e-3)


@check
def rounding_is_told_from_a_wrong_answer(device: str) -> None:
    one, other, inputs = attention(device)
    judged(foldproof.compare(one, other, inputs, trials=3), Kind.ROUNDING)
    judged(foldproof.compare(one, changed(other), inputs, trials=3), Kind.REFUTED)


@check
def a_network_of_convolutions_is_itself(device: str) -> None:
    """CUDA's default is TF32, which is 4,000 times as coarse as float32."""
    model, inputs = network(device)
    on_the_cpu = copy.deepcopy(model).cpu()
    judged(foldproof.compare(model, lambda x: on_the_cpu(x.cpu()).to(device), inputs, trials=3), Kind.ROUNDING)


@check
def compilers_are_audited(device: str) -> None:
    model, inputs = network(device)
    for compiler in ("fx", "export"):
        found = foldproof.audit(model, inputs, compiler=compiler)
        assert found.kind in (Kind.PROVED, Kind.PROVED_WITHIN, Kind.ROUNDING), str(found)
        assert "are not compared" not in str(found), str(found)


@check
def memory_is_copied_before_a_pass_writes_to_it(device: str) -> None:
    copies, x = Copies(), torch.ones(3).to(device)
    identity, kept = copies.of(x)
    x.mul_(2)
    assert kept.cpu().tolist() == [1, 1, 1] and copies.of(x)[0] != identity


@check
def a_draw_is_no_wrong_answer(device: str) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).to(device).train(), torch.randn(4, 8).to(device)
    found = foldproof.compare(model, copy.deepcopy(model), (x,), trials=2)
    assert found.kind is not Kind.REFUTED, str(found)


def outcome(run: Check, device: str) -> str:
    """Return "ok", or what went wrong, in a line."""
    try:
        run(device)
    except Exception as error:
        traceback.print_exc()
        return " ".join(f"{type(error).__name__}: {error}".split())
    return "ok"


def main(device: str) -> int:
    """Run the checks on a device and return the exit status."""
    if device == "far":
        from tests.devices import far

        far.register()
    warnings.simplefilter("ignore")
    failed = 0
    for name, run in CHECKS.items():
        told = outcome(run, device)
        failed += told != "ok"
        sys.stdout.write(f"{name} {told}\n")
        sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
