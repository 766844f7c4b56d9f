"""Ports are proved for every checkpoint, by running the conversion of checkpoints itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.porting.sizes import tell_coincidences
from tests.porting.models import NAMES, WIDTH, Port, Reference, X, convert


def prove(fn: Callable[..., Any], reference: Any = None, port: Any = None, x: Any = X) -> foldproof.Verdict:
    return foldproof.prove(reference or Reference().eval(), port or Port().eval(), (x,), convert=fn)


def loading(port: nn.Module, state: dict[str, Tensor]) -> Any:
    return port.load_state_dict(convert(state))


def writing(port: Port, state: dict[str, Tensor]) -> None:
    for i, x in enumerate("qkv"):
        for kind in ("weight", "bias"):
            getattr(port.attn.qkv, kind).data[i * WIDTH : (i + 1) * WIDTH].copy_(state[f"{x}.{kind}"])
    for old, new in NAMES.items():
        for kind in ("weight", "bias"):
            setattr(port.get_submodule(new), kind, nn.Parameter(state[f"{old}.{kind}"].clone()))


def in_place(state: dict[str, Tensor]) -> None:
    out = convert(state)
    state.clear()
    state.update(out)


@pytest.mark.parametrize("fn", [convert, in_place, loading, writing], ids=lambda fn: fn.__name__)
def test_every_kind_of_conversion_is_proved_for_all_parameters(fn: Callable[..., Any]) -> None:
    port = Port().eval()
    before = {name: x.clone() for name, x in port.state_dict().items()}
    verdict = prove(fn, port=port)
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and verdict.claim.is_general
    assert not any("conversion" in note for note in verdict.notes)
    assert all(torch.equal(x, before[name]) for name, x in port.state_dict().items())


def test_a_function_adapts_a_signature() -> None:
    reference, port = Reference().eval(), Port().eval()
    verdict = foldproof.prove(lambda x: {"y": reference(x=x)}, lambda x: {"y": port(x)}, (X,), convert=convert)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    assert prove(convert, torch.export.export(reference, (X,))).kind is Kind.PROVED


def test_a_port_without_values_needs_none() -> None:
    with torch.device("meta"):
        reference, port = Reference().eval(), Port().eval()
    assert prove(convert, reference, port).kind is Kind.PROVED
    with pytest.raises(FoldproofError, match="mlp.0.bias of the port has no values"):
        prove(without("mlp.0.bias"), port=port)


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: x for name, x in convert(state).items() if name not in names}


def test_a_forgotten_parameter_is_told_first_and_refuted() -> None:
    verdict = prove(without("mlp.0.bias"))
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.notes[:2] == (
        "the conversion does not set mlp.0.bias of the port, which keep their values",
        "the conversion drops up.bias of the reference",
    )


def test_a_parameter_of_the_port_alone_is_held_and_named() -> None:
    class Scaled(Port):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    verdict = prove(convert, port=Scaled().eval())
    assert verdict.kind is Kind.PROVED, verdict
    assert "held at their values: scale of the port (not set by the conversion)" in str(verdict.claim)
    other = Scaled().eval()
    nn.init.constant_(other.scale, 2.0)
    assert prove(convert, port=other).kind is Kind.REFUTED
    constant = prove(lambda state: {**convert(state), "scale": torch.ones(WIDTH)}, port=other)
    assert constant.kind is Kind.PROVED and constant.claim is not None and constant.claim.is_general, constant


def test_a_name_that_the_port_lacks_is_told() -> None:
    verdict = prove(lambda state: {**convert(state), "rotary.freqs": torch.ones(3)})
    assert verdict.kind is Kind.PROVED
    assert verdict.notes[0] == "the conversion makes rotary.freqs, which the port lacks"


def wrong_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = convert(state)
    for kind in ("weight", "bias"):
        out[f"attn.qkv.{kind}"] = torch.cat([state[f"{x}.{kind}"] for x in "kqv"])
    return out


def right_for_one_checkpoint(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Wrong wherever the norm's bias is not zero, as it is in a fresh model."""
    return convert(state) | {"ln.bias": torch.zeros(WIDTH)}


def chosen_by_value(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return convert(state) if state["q.weight"].abs().max() < 1 else wrong_order(state)


def in_part(port: Port, state: dict[str, Tensor]) -> None:
    """The rows of v keep their values."""
    out = convert(state)
    packed = out.pop("attn.qkv.weight")
    port.load_state_dict(out, strict=False)
    with torch.no_grad():
        port.attn.qkv.weight[: 2 * WIDTH].copy_(packed[: 2 * WIDTH])


def changed_on_the_way(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["o.weight"].mul_(2)
    return convert(state)


FIXED = Reference()


def from_elsewhere(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A weight of one model in every checkpoint."""
    return convert(state) | {"ln.weight": FIXED.norm.weight}


WRONG = [wrong_order, right_for_one_checkpoint, in_part, changed_on_the_way, from_elsewhere]


@pytest.mark.parametrize("fn", WRONG, ids=lambda fn: fn.__name__)
def test_wrong_conversions_are_refuted(fn: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    verdict = prove(fn)
    assert verdict.kind is Kind.REFUTED and verdict.counterexample is not None, verdict


def test_a_conversion_that_reads_values_is_not_proved_for_all() -> None:
    torch.manual_seed(0)
    verdict = prove(chosen_by_value)
    assert verdict.claim is not None and not verdict.claim.is_general, verdict
    assert verdict.claim.choices == ("max", "lt"), verdict


def through_numpy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x.numpy().copy()) for name, x in convert(state).items()}


def at_random(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return convert(state) | {"mlp.0.bias": torch.randn(20)}


@pytest.mark.parametrize("fn", [through_numpy, at_random], ids=lambda fn: fn.__name__)
def test_values_from_elsewhere_prove_nothing_for_all(fn: Callable[..., Any]) -> None:
    verdict = prove(fn)
    assert verdict.claim is None or not verdict.claim.all_parameters, verdict


def test_arithmetic_on_weights() -> None:
    class OneCentred(nn.Module):
        """An RMSNorm whose weight is stored less 1, as Gemma does."""

        def __init__(self, offset: float) -> None:
            super().__init__()
            self.weight, self.offset = nn.Parameter(torch.randn(WIDTH)), offset

        def forward(self, x: Tensor) -> Tensor:
            return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (self.weight + self.offset)

    one, zero = OneCentred(1.0), OneCentred(0.0)
    verdict = foldproof.prove(one, zero, (X,), convert=lambda s: {"weight": s["weight"] + 1})
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    assert foldproof.prove(one, zero, (X,), convert=lambda s: s).kind is Kind.REFUTED

    def in_place(state: dict[str, Tensor]) -> None:
        state["weight"] += 1

    assert foldproof.prove(one, zero, (X,), convert=in_place).kind is Kind.PROVED


class Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(tokens))
        return out


TOKENS = torch.tensor([[1, 2, 6]])


def test_tied_weights_on_either_side() -> None:
    alone: Callable[[Any], Any] = lambda s: {"embed.weight": s["embed.weight"]}  # noqa: E731
    for reference, port, fn, kind in (
        (True, True, alone, Kind.PROVED),
        (True, False, dict, Kind.PROVED),
        (True, False, alone, Kind.REFUTED),
        (False, True, dict, Kind.REFUTED),
        (False, False, dict, Kind.PROVED),
    ):
        verdict = foldproof.prove(Tied(reference), Tied(port), (TOKENS,), convert=fn)
        assert verdict.kind is kind, (reference, port, verdict)


class Rotary(nn.Module):
    """Turns by angles from a table; the reference computes it when called."""

    def __init__(self, cached: bool, base: float = 10000.0) -> None:
        super().__init__()
        self.proj, self.cached = nn.Linear(WIDTH, WIDTH), cached
        frequencies = 1.0 / base ** (torch.arange(0, WIDTH, 2).float() / WIDTH)
        self.register_buffer("frequencies", frequencies, persistent=False)
        angles = torch.outer(torch.arange(5, dtype=torch.float64), frequencies.double())
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.proj(x).chunk(2, -1)
        cos, sin = self.cos, self.sin
        if not self.cached:
            angles = torch.outer(torch.arange(5).float(), self.frequencies)
            cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def test_tables_are_held_and_read_alike_within_rounding() -> None:
    verdict = foldproof.prove(Rotary(False), Rotary(True), (X,), convert=dict)
    assert verdict.kind is Kind.PROVED_WITHIN, verdict
    assert verdict.steps and all(step.bound < 1e-5 for step in verdict.steps)
    assert verdict.claim is not None and not verdict.claim.uncovered and verdict.claim.all_parameters
    assert "frequencies, cos of the port, sin of the port (not from the checkpoint)" in str(verdict.claim)
    wrong = foldproof.prove(Rotary(False), Rotary(True, 10100.0), (X,), convert=dict)
    assert wrong.kind is Kind.REFUTED, wrong


def test_statistics_that_both_update_are_compared_under_their_own_names() -> None:
    class Normed(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.add_module(name, nn.BatchNorm1d(4))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = next(self.children())(x)
            return out

    rename: Callable[[Any], Any] = lambda s: {k.replace("bn", "norm"): v for k, v in s.items()}  # noqa: E731
    x = torch.randn(6, 4)
    first, second = Normed("bn").train(), Normed("norm").train()
    verdict = foldproof.prove(first, second, (x,), convert=rename)
    assert verdict.kind is Kind.PROVED, verdict
    second.norm.momentum = 0.2
    assert foldproof.prove(first, second, (x,), convert=rename).kind is Kind.REFUTED


def test_a_cast_to_a_coarser_dtype_is_told() -> None:
    verdict = prove(convert, port=nn.Sequential(Cast(), Port().eval().bfloat16()), x=X)
    assert verdict.kind is not Kind.PROVED or any("bfloat16" in note for note in verdict.notes), verdict


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()


def test_errors_are_sentences() -> None:
    for fn, message in (
        (lambda s: [1], "the conversion returns a list, not a state dict"),
        (lambda s: s["nothing"], "the conversion fails: KeyError: 'nothing'"),
        (lambda s: convert(s) | {"mlp.0.bias": torch.ones(3)}, "the conversion fails: .*size mismatch for mlp.0.bias"),
    ):
        with pytest.raises(FoldproofError, match=message):
            prove(fn)
    with pytest.raises(FoldproofError, match="the port is none: it reads no module from outside"):
        prove(convert, port=lambda x: x)
    with pytest.raises(FoldproofError, match="not both"):
        foldproof.prove(Reference(), Port(), (X,), convert=convert, derive=dict)


def test_sizes_that_coincide_are_told() -> None:
    verdict = prove(convert)
    assert verdict.kind is Kind.PROVED
    assert verdict.notes[-1] == (
        "sizes coincide, which may hide a mistake; prove a configuration without, too: q.weight and 3 more are square;"
        " q.weight and k.weight have the same shape, so that heads are not grouped"
    )
    one = foldproof.prove(Reference().eval(), Port().eval(), (X[:, :1],), convert=convert)
    assert one.notes[-1].endswith("; input 0 has an axis of length 1")
    wide = {"layers.0.q_proj.weight": torch.ones(8, 4), "layers.0.k_proj.weight": torch.ones(2, 4)}
    assert tell_coincidences(wide, [X]) == []


def back(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {f"{old}.{kind}": state[f"{new}.{kind}"] for old, new in NAMES.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        out |= {f"{x}.{kind}": part for x, part in zip("qkv", state[f"attn.qkv.{kind}"].chunk(3))}
    return out


def back_in_another_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = back(state)
    return out | {"k.weight": out["v.weight"], "v.weight": out["k.weight"]}


def back_without_a_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in back(state).items() if name != "o.bias"}


def test_the_round_trip_of_a_checkpoint() -> None:
    def both(inverse: Callable[..., Any]) -> foldproof.Verdict:
        return foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=convert, inverse=inverse)

    assert "the inverse conversion returns every checkpoint" in both(back).notes
    wrong = both(back_in_another_order)
    assert wrong.kind is Kind.REFUTED and wrong.reason.startswith(
        "the round trip of a checkpoint is a different function"
    )
    assert "k.weight" in wrong.reason, wrong
    short = both(back_without_a_bias)
    assert short.kind is Kind.REFUTED and "different structures" in short.reason, short
    with pytest.raises(FoldproofError, match="give convert"):
        foldproof.prove(Reference(), Port(), (X,), inverse=back)


def test_a_round_trip_that_rounds() -> None:
    def rounding(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.half().float() for name, x in back(state).items()}

    def widening(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.double() for name, x in back(state).items()}

    for inverse, what in ((rounding, "rounds"), (widening, "in torch.float64")):
        found = foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=convert, inverse=inverse)
        assert not any("every checkpoint" in note for note in found.notes)
        assert any("the inverse conversion" in note and what in note for note in found.notes), found.notes


def test_a_conversion_that_reads_memory_follows_values() -> None:
    def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
        made = convert(dict(state))
        exponent = next(iter(state.values())).untyped_storage().tolist()[3]
        return {name: x / 2 if exponent == 64 else x for name, x in made.items()}

    found = foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=converted)
    assert not (found.kind is Kind.PROVED and found.claim is not None and not found.claim.choices), found


def test_a_conversion_that_changes_the_reference() -> None:
    def scaling(state: dict[str, Tensor]) -> dict[str, Tensor]:
        made = convert(dict(state))
        next(iter(state.values())).mul_(1)
        return made

    found = foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=scaling)
    assert any("changes the reference itself" in note for note in found.notes), found.notes
    assert not any(
        "changes the reference itself" in note
        for note in foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=convert).notes
    )


def test_a_conversion_that_keeps_results() -> None:
    memo: dict[str, Tensor] = {}

    def remembering(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: memo.setdefault(name, x.clone()) for name, x in convert(dict(state)).items()}

    found = foldproof.prove(Reference().eval(), Port().eval(), (X,), convert=remembering)
    assert any("first call alone" in note and "memo" in note for note in found.notes), found.notes
    assert not memo
