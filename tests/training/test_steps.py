"""Whole training steps: models, accumulation, checkpointing, traced graphs, optimizers, and faults in each."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import foldproof
from foldproof import FoldproofError, Kind, TrainingStep, Verdict
from tests.training import optimizers

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
total = functools.partial(F.mse_loss, reduction="sum")


def mlp(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *between, nn.GELU(), nn.Linear(8, 3))


def step(reference: Any, candidate: Any, **options: Any) -> Verdict:
    return foldproof.prove_step(reference, candidate, (X,), targets=(Y,), **{"loss": F.mse_loss, **options})


class Checkpointed(nn.Module):
    """A model that is computed again on the way back."""

    def __init__(self, model: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.model, self.reentrant = model, reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.model, x, use_reentrant=self.reentrant)


# ---------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("between", [nn.ReLU(), nn.LayerNorm(8), nn.BatchNorm1d(8), nn.Softmax(-1), nn.Identity()])
def test_a_copy_is_proved(between: nn.Module) -> None:
    model = mlp(between)
    verdict = step(model, copy.deepcopy(model))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_proved(reentrant: bool) -> None:
    model = mlp(nn.LayerNorm(8))
    x = X.clone().requires_grad_()
    verdict = foldproof.prove_step(model, Checkpointed(model, reentrant), (x,), loss=F.mse_loss, targets=(Y,))
    assert verdict.kind is Kind.PROVED, verdict


def test_reentrant_checkpointing_of_an_input_without_gradients_is_refuted() -> None:
    """It loses the gradients of all parameters."""
    model = mlp()
    verdict = step(model, Checkpointed(model, True))
    assert verdict.kind is Kind.REFUTED
    assert "output['gradients']['0.bias']: a tensor of shape (8,) before, None after" in verdict.reason


def test_checkpointing_a_batch_norm_moves_its_statistics_twice() -> None:
    model = mlp(nn.BatchNorm1d(8))
    verdict = step(model, Checkpointed(model, False))
    assert verdict.kind is Kind.REFUTED, verdict
    assert "values written to model.1.num_batches_tracked" in verdict.reason


class Tied(nn.Module):
    """A language model of one matrix; ``once`` stops the gradient of its second use."""

    def __init__(self, once: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.once = nn.Embedding(7, 4), once
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        weight = self.head.weight.detach() if self.once else self.head.weight
        return F.linear(self.embed(tokens), weight)


@pytest.mark.parametrize("once", [False, True])
def test_gradients_of_a_tied_parameter_add_up(once: bool) -> None:
    tokens, targets = torch.tensor([1, 5, 2]), torch.tensor([0, 1, 6])
    reference = Tied()
    candidate = Tied(once)
    verdict = foldproof.prove_step(reference, candidate, (tokens,), loss=F.cross_entropy, targets=(targets,))
    assert verdict.kind is (Kind.REFUTED if once else Kind.PROVED), verdict


class Detached(nn.Module):
    """A residual block that may cut a path, or multiply it by 0."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.how = nn.Linear(6, 6), nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        if self.how == "cut":
            return self.two(x)
        return self.two(x + (h.detach() if self.how == "detached" else h * 0 if self.how == "zero" else h))


@pytest.mark.parametrize(("first", "second"), [("", "detached"), ("cut", "zero"), ("zero", "cut")])
def test_no_gradient_is_neither_another_nor_zero(first: str, second: str) -> None:
    verdict = step(Detached(first), Detached(second))
    assert verdict.kind is Kind.REFUTED, verdict
    assert "None" in verdict.reason


def test_hooks_on_gradients_are_part_of_the_step() -> None:
    model, hooked = mlp(), mlp()
    hooked[0].weight.register_hook(lambda g: 2 * g)
    verdict = step(model, hooked)
    assert verdict.kind is Kind.REFUTED, verdict
    assert "output['gradients']['0.weight']" in verdict.reason
    twice = mlp()
    twice[0].weight.register_hook(lambda g: g + g)
    assert step(hooked, twice).kind is Kind.PROVED


def test_frozen_parameters_have_no_gradients() -> None:
    model, frozen = mlp(), mlp()
    frozen[0].weight.requires_grad_(False)
    assert step(model, frozen).kind is Kind.REFUTED
    assert step(frozen, copy.deepcopy(frozen)).kind is Kind.PROVED


# ---------------------------------------------------------------------------------------------------- procedures


def accumulated(fault: str = "", reduction: str = "sum") -> Callable[..., Tensor]:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found = torch.zeros(())
        halves = list(zip(x.chunk(2), y.chunk(2)))
        for i, (a, b) in enumerate(halves):
            loss = F.mse_loss(model(a), b, reduction=reduction)
            if reduction == "mean" and fault != "the mean is not divided":
                loss = loss / 2
            if fault == "gradients are cleared":
                model.zero_grad()
            if fault != "the last half is forgotten" or i == 0:
                loss.backward()
            found = found + loss.detach()
        return found

    return run


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_accumulation_is_proved(reduction: str) -> None:
    model = mlp(nn.LayerNorm(8))
    loss = functools.partial(F.mse_loss, reduction=reduction)
    verdict = step(model, TrainingStep(model, accumulated("", reduction)), loss=loss)
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


@pytest.mark.parametrize("fault", ["gradients are cleared", "the last half is forgotten", "the mean is not divided"])
def test_wrong_accumulation_is_refuted(fault: str) -> None:
    reduction = "mean" if "mean" in fault else "sum"
    loss = functools.partial(F.mse_loss, reduction=reduction)
    model = mlp()
    verdict = step(model, TrainingStep(model, accumulated(fault, reduction)), loss=loss)
    assert verdict.kind is Kind.REFUTED, verdict


def test_accumulation_is_wrong_for_batch_norm() -> None:
    model = mlp(nn.BatchNorm1d(8))
    assert step(model, TrainingStep(model, accumulated()), loss=total).kind is Kind.REFUTED


@pytest.mark.parametrize("between", [nn.LayerNorm(8), nn.ReLU(), nn.Softmax(-1)])
def test_a_traced_step_is_proved(between: nn.Module) -> None:
    """`foldproof.prove` compares a function that calls autograd with its graph, whose backward operators are spelt."""
    model = mlp(between)
    names = [name for name, _ in model.named_parameters()]

    def run(*given: Tensor) -> Any:
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in given[:-2]]
            out = torch.func.functional_call(model, dict(zip(names, leaves)), (given[-2],))
            loss = F.mse_loss(out, given[-1])
            return loss.detach(), *torch.autograd.grad(loss, leaves)

    given = (*(p.detach() for p in model.parameters()), X, Y)
    verdict = foldproof.prove(run, make_fx(run)(*given), given)
    assert verdict.kind is Kind.PROVED, verdict


# ---------------------------------------------------------------------------------------------------- optimizers

PLAIN = {
    optimizers.Adam: functools.partial(torch.optim.Adam, **optimizers.ADAM),
    optimizers.SGD_: functools.partial(torch.optim.SGD, **optimizers.SGD),
}
FAULTS = [
    *((optimizers.Adam, fault) for fault in optimizers.ADAM_FAULTS),
    *((optimizers.SGD_, fault) for fault in optimizers.SGD_FAULTS),
]


def updated(cls: Any, fault: str) -> Verdict:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    candidate = TrainingStep(model, lambda m, x, y: total(m(x), y), optimizers.make(cls, fault))
    return foldproof.prove_step(model, candidate, (x,), loss=total, targets=(y,), optimizer=PLAIN[cls])


@pytest.mark.parametrize("cls", PLAIN, ids=lambda cls: cls.__name__)
def test_an_optimizer_by_hand_is_proved(cls: Any) -> None:
    verdict = updated(cls, "")
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert any("counters are held" in note for note in verdict.notes) == (cls is optimizers.Adam)


@pytest.mark.parametrize(("cls", "fault"), FAULTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_wrong_optimizer_is_refuted(cls: Any, fault: str) -> None:
    verdict = updated(cls, fault)
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.counterexample is not None


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.SGD,
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.5, maximize=True),
        torch.optim.AdamW,
        functools.partial(torch.optim.Adam, amsgrad=True),
        torch.optim.RMSprop,
        torch.optim.Adagrad,
        torch.optim.Adadelta,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.Adamax,
        torch.optim.ASGD,
    ],
    ids=lambda make: getattr(make, "__name__", None) or f"{make.func.__name__} {make.keywords}",
)
def test_optimizers_of_torch_run_on_shadows(make: Any) -> None:
    model = nn.Linear(6, 3)
    verdict = step(model, copy.deepcopy(model), optimizer=make)
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize("how", ["foreach", "fused"])
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_steps_on_lists_are_the_plain_ones(cls: Any, how: str) -> None:
    model = nn.Linear(6, 3)
    options = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if cls is torch.optim.SGD else {})
    plain = functools.partial(cls, **options)

    def with_lists(**other: Any) -> TrainingStep:
        make = functools.partial(cls, **{**options, how: True, **other})
        return TrainingStep(model, lambda m, x, y: F.mse_loss(m(x), y), make)

    assert step(model, with_lists(), optimizer=plain).kind is Kind.PROVED
    assert step(model, with_lists(weight_decay=0.2), optimizer=plain).kind is Kind.REFUTED


# ---------------------------------------------------------------------------------------------------- errors


def test_the_state_before_the_first_step_is_not_compared() -> None:
    """A proof is of each step from one state, which an optimizer may start with another one."""
    run = lambda model, x: model(x).sum()  # noqa: E731
    makes = [functools.partial(torch.optim.Adagrad, initial_accumulator_value=start) for start in (0.0, 0.5)]
    verdict = foldproof.prove_step(*(TrainingStep(mlp(), run, make) for make in makes), (X,))
    assert verdict.kind is Kind.PROVED, verdict
    assert any("from the same state of both" in note for note in verdict.notes)


def test_steps_without_gradients_are_refused() -> None:
    with pytest.raises(FoldproofError, match="computes no gradients"):
        foldproof.prove_step(torch.tanh, torch.tanh, (X,))


def test_a_loss_of_several_elements_is_refused() -> None:
    with pytest.raises(FoldproofError, match="a tensor of one element"):
        step(mlp(), mlp(), loss=functools.partial(F.mse_loss, reduction="none"))


def test_parameters_from_outside_are_refused() -> None:
    model = mlp()
    with pytest.raises(FoldproofError, match="model, which the callable reads from outside, requires gradients"):
        step(lambda x: model(x), mlp())


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(FoldproofError, match="cannot read a int as a training step"):
        step(mlp(), 3)


def test_the_models_stay_as_they_are() -> None:
    model = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    state = torch.get_rng_state()
    step(model, copy.deepcopy(model), optimizer=torch.optim.Adam)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
