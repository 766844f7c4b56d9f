"""PyTorch's default generators, those of an accelerator included; a generator of the CPU stands for one of these."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import foldproof
from foldproof.generators import find_generators, kept_generators, read_states, seed_generators
from foldproof.verdict import Kind


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    """The generator of an accelerator."""
    made = torch.Generator().manual_seed(5)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(default_generators=(made,)))
    return made


def test_without_an_accelerator_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    assert find_generators() == [torch.default_generator]


def test_an_accelerator_that_was_not_used_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(default_generators=()))
    assert find_generators() == [torch.default_generator]


def test_all_states_are_put_back(other: torch.Generator) -> None:
    before = read_states()
    with pytest.raises(ZeroDivisionError), kept_generators():
        seed_generators(1)
        drawn = torch.rand(3, generator=other), torch.rand(3)
        assert torch.equal(*drawn)  # both from the same seed
        raise ZeroDivisionError
    assert all(map(torch.equal, before, read_states()))


def test_a_draw_that_nothing_else_shows_is_no_proof(other: torch.Generator) -> None:
    """As a custom operator on the device draws: no operator that PyTorch dispatches to does."""

    def program(x: Tensor) -> Tensor:
        other.manual_seed(other.initial_seed() + 1)
        return x * 2

    found = foldproof.prove(program, program, (torch.randn(3),))
    assert found.kind is Kind.UNDECIDED and "draws random numbers" in found.reason
