"""`prove` on programs of every form, and every verdict that it can give."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import Dim

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.field import PRIMES
from foldproof.proof import prove as prove_programs
from foldproof.testing import assert_equivalent

from .models import trained


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)]
    return trained(nn.Sequential(*body)), torch.randn(2, 3, 6, 6)


def folded(model: nn.Module) -> nn.Module:
    """The conv with its BatchNorm folded in, in float32: a rounded constant."""
    out = copy.deepcopy(model)
    out[0] = nn.utils.fuse_conv_bn_eval(out[0], out[1])  # type: ignore[index]
    out[1] = nn.Identity()  # type: ignore[index]
    return out


def test_forms_agree() -> None:
    model, x = network()
    program = torch.export.export(model, (x,))
    forms = [model, program, program.module(), program.run_decompositions(), lambda x: model(x), model.forward]
    for form in forms:
        verdict = foldproof.prove(model, form, (x,))
        assert verdict.kind is Kind.PROVED, str(verdict)
        assert str(verdict.claim) == "all inputs and all parameters"
        assert (
            verdict.proof is not None
            and verdict.proof.log2_error < -40
            and verdict.proof.uninterpreted == ("rsqrt", "maximum")
        )


def test_verdict_is_text_and_json() -> None:
    model, x = network()
    for other in (model, folded(model), lambda x: model(x) + 1):
        verdict = foldproof.prove(model, other, (x,))
        read = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
        assert read["kind"] == verdict.kind.value and str(verdict).startswith(verdict.kind.value)


def test_rounded_constants_are_rounding() -> None:
    """As for constants that no fold of the first program computes."""
    model, x = network()
    verdict = prove_programs(model, folded(model), (x,))
    assert verdict.kind is Kind.ROUNDING, str(verdict)
    assert verdict.rounding is not None and 0 < verdict.rounding.sigma < 12
    assert any("only the second program has" in note for note in verdict.notes)


@pytest.mark.parametrize("eps", [1e-3, 2e-5])
def test_another_eps_is_refuted(eps: float) -> None:
    model, x = network()
    other = copy.deepcopy(model)
    other[1].eps = eps  # type: ignore[index, union-attr]
    verdict = foldproof.prove(model, other, (x,))
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_parameter_values_that_matter_limit_the_claim() -> None:
    """Dropping a bias that happens to be zero is right for these parameters only."""
    linear = nn.Linear(3, 4)
    nn.init.zeros_(linear.bias)
    without = nn.Linear(3, 4, bias=False)
    without.weight = linear.weight
    verdict = foldproof.prove(linear, without, (torch.randn(2, 3),))
    assert verdict.kind is Kind.PROVED and str(verdict.claim) == "all inputs, for these parameter values"
    nn.init.ones_(linear.bias)
    assert foldproof.prove(linear, without, (torch.randn(2, 3),)).kind is Kind.REFUTED


def test_same_name_with_other_content_is_another_parameter() -> None:
    a, b = nn.Linear(3, 4), nn.Linear(3, 4)
    assert foldproof.prove(a, b, (torch.randn(2, 3),)).kind is Kind.REFUTED


def test_renamed_parameters_are_found_by_content() -> None:
    model, x = network()
    wrapped = nn.ModuleDict({"inner": copy.deepcopy(model)})
    verdict = foldproof.prove(model, lambda x: wrapped["inner"](x), (x,))
    assert verdict.kind is Kind.PROVED and any("equal content" in note for note in verdict.notes)


def test_swapped_equal_biases_are_not_confused() -> None:
    """Two parameters of equal content are two variables: reading one for the other is no general truth."""

    class Two(nn.Module):
        def __init__(self, swap: bool) -> None:
            super().__init__()
            self.a, self.b, self.swap = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3)), swap

        def forward(self, x: Tensor) -> Tensor:
            return x * self.b + self.a if self.swap else x * self.a + self.b

    verdict = foldproof.prove(Two(False), Two(True), (torch.randn(3),))
    assert verdict.kind is Kind.PROVED and str(verdict.claim) == "all inputs, for these parameter values"


def test_no_rule_is_undecided_and_named() -> None:
    verdict = foldproof.prove(lambda x: torch.rand_like(x) * x, lambda x: x, (torch.randn(3),))
    assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED)

    def through_bits(x: Tensor) -> Tensor:
        return (x * 1).view(torch.int32).view(torch.float32)

    undecided = foldproof.prove(through_bits, lambda x: x * 1, (torch.randn(3, 2),))
    assert undecided.kind is Kind.UNDECIDED and "aten.view.dtype" in undecided.reason


def test_branches_are_named() -> None:
    x = torch.randn(2, 5)
    verdict = foldproof.prove(lambda x: x.amax(1), lambda x: x.max(1).values, (x,))
    # A maximum is a function of its operands; Python code might read the indices that `max` returns beside it.
    assert verdict.kind is Kind.PROVED and verdict.proof is not None and set(verdict.proof.branching) == {"max"}


def test_values_that_leave_the_tensor_world_are_told() -> None:
    x = torch.randn(4)
    verdict = foldproof.prove(lambda x: x * 2 if x[0].item() < 99 else x, lambda x: x + x, (x,))
    assert verdict.kind is Kind.PROVED and any(".py:" in n and "read out of a tensor" in n for n in verdict.notes)


def test_integer_inputs_are_held() -> None:
    table = nn.Embedding(10, 4)
    verdict = foldproof.prove(table, lambda i: table.weight[i], (torch.tensor([1, 2]),))
    assert verdict.kind is Kind.PROVED and not verdict.claim.all_inputs
    assert str(verdict.claim) == "the given inputs and all parameters; held at their values: input 0 (integers)"


def test_dynamic_shapes_are_sampled() -> None:
    model = trained(nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)))
    x = torch.randn(4, 3, 8)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: Dim("n", max=64), 2: Dim("l", min=4, max=99)},))
    verdict = foldproof.prove(program, program.run_decompositions(), (x,))
    assert verdict.kind is Kind.PROVED and verdict.proof is not None
    assert (
        "(4, 3, 8)" in verdict.claim.shapes and "(5, 3, 9)" in verdict.claim.shapes and len(verdict.claim.shapes) == 3
    )


def test_shape_dependence_is_found_by_sampling() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.shape[0]

    x = torch.randn(4, 3)
    program = torch.export.export(Scaled(), (x,), dynamic_shapes=({0: Dim("n", max=64)},))
    verdict = foldproof.prove(program, lambda x: x * 4, (x,))
    assert verdict.kind is Kind.REFUTED


def test_batches_of_0_and_1() -> None:
    model, x = network()
    program = torch.export.export(model, (x,), dynamic_shapes=({0: Dim("n", max=64)},))
    assert foldproof.prove(model, program, (x[:1],)).kind is Kind.PROVED
    empty = foldproof.prove(model, lambda x: model(x) + 1, (x[:0],))
    assert empty.kind is Kind.UNDECIDED and "empty" in empty.reason


def test_outputs_that_ignore_the_input_are_noticed() -> None:
    class Drowned(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(slope))

        def forward(self, x: Tensor) -> Tensor:
            return 1e6 + 1e-6 * self.slope * x

    verdict = foldproof.prove(Drowned(1.0), Drowned(-1.0), (torch.randn(5),))
    assert verdict.kind is Kind.UNDECIDED and "hardly depend" in verdict.reason


def test_writes_are_compared() -> None:
    def writes(x: Tensor) -> Tensor:
        y = x * 1
        x.add_(1)
        return y

    x = torch.randn(3)
    before = x.clone()
    assert foldproof.prove(writes, lambda x: x * 1, (x,)).kind is not Kind.PROVED
    assert foldproof.prove(writes, writes, (x,)).kind is Kind.PROVED
    assert torch.equal(x, before), "the caller's input was written to"


def test_training_mode_writes_statistics() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    kept = copy.deepcopy(model.state_dict())
    x = torch.randn(6, 3)
    program = torch.export.export(model, (x,))
    verdict = foldproof.prove(program.run_decompositions(), program.run_decompositions(), (x,))
    assert verdict.kind is Kind.PROVED, str(verdict)
    assert all(torch.equal(kept[n], t) for n, t in model.state_dict().items())


def test_constants_made_of_primes_do_not_fool_it() -> None:
    """x·p is 0 modulo p: with primes known in advance, adding a multiple of all of them would be invisible."""
    factors = PRIMES[-40:]

    def sneaky(x: Tensor) -> Tensor:
        term = x
        for p in factors:
            term = term * float(p)
        return x + term

    assert foldproof.prove(lambda x: x + 0, sneaky, (torch.randn(3),), seed=1).kind is not Kind.PROVED


def test_a_degree_too_high_is_undecided() -> None:
    def squares(x: Tensor, n: int) -> Tensor:
        return x if n == 0 else squares(x * x, n - 1)

    def cubes(x: Tensor, n: int) -> Tensor:
        return x if n == 0 else cubes(x * x * x, n - 1)

    # No value of the one but the result is a value of the other, so that no value can be cut.
    one, other = lambda x: squares(cubes(x, 12), 20), lambda x: cubes(squares(x, 20), 12)
    verdict = foldproof.prove(one, other, (torch.ones(2),))
    assert verdict.kind is Kind.UNDECIDED and "degree" in verdict.reason


def test_a_failing_program_is_one_sentence() -> None:
    def fails(x: Tensor) -> Tensor:
        raise ValueError("no such thing\nmore")

    verdict = foldproof.prove(lambda x: x, fails, (torch.randn(3),))
    assert verdict.kind is Kind.UNDECIDED and re.search("second program fails.*no such thing$", verdict.reason)


def test_what_is_no_program() -> None:
    with pytest.raises(FoldproofError, match="cannot read a int"):
        foldproof.prove(3, 4, ())
    with pytest.raises(FoldproofError, match="pass needs something"):
        foldproof.prove_pass(lambda m: m, lambda x: x, (torch.randn(2),))


def test_wrong_inputs_for_an_exported_program() -> None:
    model, x = network()
    program = torch.export.export(model, (x,))
    with pytest.raises(FoldproofError, match="do not fit"):
        foldproof.prove(program, program, (x, x))


def test_assert_equivalent() -> None:
    model, x = network()
    assert assert_equivalent(model, folded(model), (x,)).kind is Kind.PROVED
    with pytest.raises(AssertionError, match="(?s)REFUTED.*counterexample"):
        assert_equivalent(model, lambda x: F.relu(model(x)), (x,))


def test_pass_that_returns_a_number() -> None:
    model, x = network()
    with pytest.raises(FoldproofError, match="no program"):
        foldproof.prove_pass(lambda m: 3, model, (x,))


def test_pass_that_returns_whether_it_changed_something() -> None:
    def swap(m: fx.GraphModule, names: tuple[str, str]) -> bool:
        for node in m.graph.nodes:
            if node.op == "call_function":
                node.args = tuple(n for name in names for n in m.graph.nodes if n.name == name)
        m.recompile()
        return m.graph.eliminate_dead_code()

    program, inputs = fx.symbolic_trace(lambda x, y: x - y), (torch.randn(3), torch.randn(3))
    assert foldproof.prove_pass(lambda m: swap(m, ("x", "y")), program, inputs).kind is Kind.PROVED
    assert foldproof.prove_pass(lambda m: swap(m, ("y", "x")), program, inputs).kind is Kind.REFUTED


def test_pass_that_goes_through_numpy_loses_provenance() -> None:
    def halve(m: nn.Module) -> None:
        w = m[0].weight  # type: ignore[index, union-attr]
        m[0].weight = nn.Parameter(torch.from_numpy(w.detach().numpy() * 1.0))  # type: ignore[index, union-attr]

    model, x = network()
    verdict = foldproof.prove_pass(halve, model, (x,))
    assert verdict.kind in (Kind.PROVED, Kind.ROUNDING)
    assert any("numpy" in n for n in verdict.notes), str(verdict)
    if verdict.kind is Kind.PROVED:
        assert str(verdict.claim).startswith("all inputs, for these parameter values")


def test_pass_that_treats_shadows_differently_is_undecided() -> None:
    def only_plain(m: nn.Module) -> None:
        w = m[0].weight  # type: ignore[index, union-attr]
        if type(w) is nn.Parameter:
            w.mul_(2)

    model, x = network()
    with torch.no_grad():
        verdict = foldproof.prove_pass(only_plain, model, (x,))
    assert verdict.kind is Kind.REFUTED, str(verdict)

    def only_shadows(m: nn.Module) -> None:
        w = m[0].weight  # type: ignore[index, union-attr]
        if type(w) is not nn.Parameter:
            w.mul_(2)

    with torch.no_grad():
        verdict = foldproof.prove_pass(only_shadows, model, (x,))
    assert verdict.kind is Kind.UNDECIDED and "on shadows" in verdict.reason


def test_pass_sees_tied_parameters_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight

    def look(m: nn.Module) -> None:
        assert m[0].weight is m[1].weight  # type: ignore[index]

    assert foldproof.prove_pass(look, model, (torch.randn(2, 3),)).kind is Kind.PROVED


def test_pass_that_writes_in_place() -> None:
    model, x = network()
    kept = copy.deepcopy(model.state_dict())

    def fold_in_place(m: nn.Module) -> None:
        conv, norm = m[0], m[1]  # type: ignore[index]
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        conv.weight.data.mul_(scale.view(-1, 1, 1, 1))
        conv.bias.data.sub_(norm.running_mean).mul_(scale).add_(norm.bias)
        m[1] = nn.Identity()  # type: ignore[index]

    verdict = foldproof.prove_pass(fold_in_place, model, (x,))
    assert verdict.kind is Kind.PROVED, str(verdict)
    assert all(torch.equal(kept[n], t) for n, t in model.state_dict().items()), "the caller's model was changed"


def test_programs_that_agree_at_their_own_parameters_only() -> None:
    """A zero bias dropped and a constant rounded: the same up to rounding here, and another function elsewhere."""
    linear = nn.Linear(3, 4)
    nn.init.zeros_(linear.bias)
    verdict = foldproof.prove(linear, lambda x: F.linear(x, linear.weight) * (1 + 1.2e-7), (torch.randn(2, 3),))
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    assert verdict.claim is not None and verdict.claim.differs_elsewhere and not verdict.ok


def test_bilinear_by_another_way() -> None:
    class ByHand(nn.Module):
        def __init__(self, given: nn.Bilinear, scale: float = 1.0) -> None:
            super().__init__()
            self.weight, self.bias, self.scale = given.weight, given.bias, scale

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.einsum("bi,oij,bj->bo", a, self.weight * self.scale, b) + self.bias

    given, inputs = nn.Bilinear(4, 5, 3), (torch.randn(6, 4), torch.randn(6, 5))
    verdict = foldproof.prove(given, ByHand(given), inputs)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, str(verdict)
    assert foldproof.prove(given, ByHand(given, 1.01), inputs).kind is Kind.REFUTED
