"""The result is an ordinary program: named, signed, saved, loaded, retraced, unflattened."""

from __future__ import annotations

import copy
import io
from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, largest_error, norms, run
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

import foldproof
from foldproof import Kind
from foldproof.fusion.examples import made

conv, norm = partial(nn.Conv2d, 3, 6, 3), partial(nn.BatchNorm2d, 6)
IMAGE = (2, 3, 7, 8)


class Model(nn.Module):
    """Two folds, weights that stay, buffers of both kinds, a lifted constant, and weights that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(bias=False), norm(), nn.ReLU(), nn.Conv2d(6, 6, 1), norm())
        self.head = nn.Linear(6, 4)
        self.unread = nn.Linear(2, 2)
        self.register_buffer("persistent", torch.randn(6))
        self.register_buffer("passing", torch.randn(4), persistent=False)

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        y = self.features(input)
        pooled = torch.maximum(y.mean((2, 3)), self.persistent)
        scores = torch.maximum(torch.maximum(self.head(pooled), self.passing), torch.tensor([1.0, 2, 3, 4]))
        return {"features": y, "scores": scores}


@pytest.fixture(params=["training IR", "core ATen"])
def program(request: pytest.FixtureRequest) -> ExportedProgram:
    model, inputs = made(Model(), IMAGE)
    return FORMS[request.param](torch.export.export(model, inputs))


def example(program: ExportedProgram) -> tuple[Any, ...]:
    assert program.example_inputs is not None
    return program.example_inputs[0]


def fold(program: ExportedProgram) -> ExportedProgram:
    result = foldproof.fuse(program, example(program), prove=False)
    assert len(result.rewrites) == 2
    assert not norms(result.program)
    return result.program


def test_signature_and_state(program: ExportedProgram) -> None:
    folded = fold(program)
    folded.validate()
    specs = {spec.target: spec for spec in folded.graph_signature.input_specs if spec.target}
    assert list(specs) == [
        "features.0.weight_folded",
        "features.0.bias_folded",
        "features.3.weight_folded",
        "features.3.bias_folded",
        "head.weight",
        "head.bias",
        "persistent",
        "passing",
        "lifted_tensor_0",
    ]
    assert specs["features.0.weight_folded"].arg.name == "p_features_0_weight_folded"
    assert specs["features.0.bias_folded"].kind is InputKind.PARAMETER
    assert {*folded.state_dict, *folded.constants} == set(specs)
    assert set(folded.constants) == {"passing", "lifted_tensor_0"}
    for name in ("head.weight", "head.bias", "persistent"):
        assert folded.state_dict[name] is program.state_dict[name]
    for name in folded.constants:
        assert folded.constants[name] is program.constants[name]
    for spec, old in zip(folded.graph_signature.output_specs, program.graph_signature.output_specs, strict=True):
        assert spec.kind is old.kind
    assert isinstance(folded.state_dict["features.0.bias_folded"], nn.Parameter)


def test_nodes_keep_name_place_and_metadata(program: ExportedProgram) -> None:
    folded = fold(program)
    before = {node.name: node for node in program.graph.nodes}
    calls = [node for node in folded.graph.nodes if node.op == "call_function"]
    assert [node.name for node in calls] == [
        node.name
        for node in program.graph.nodes
        if node.op == "call_function" and "batch_norm" not in str(node.target) and "getitem" not in node.name
    ]
    for node in calls:
        assert dict(node.meta) == dict(before[node.name].meta)
        assert node.meta["val"] is before[node.name].meta["val"]
    placeholders = [node for node in folded.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, folded.graph_signature.input_specs, strict=True):
        if spec.target:
            held = {**folded.state_dict, **folded.constants}[spec.target]
            value = node.meta["val"]
            assert (value.shape, value.dtype, value.stride()) == (held.shape, held.dtype, held.stride())
            assert value.requires_grad == held.requires_grad
    assert placeholders[-1].name == "input"


def test_save_and_load(program: ExportedProgram) -> None:
    folded = fold(program)
    file = io.BytesIO()
    torch.export.save(folded, file)
    file.seek(0)
    loaded = torch.export.load(file)
    inputs = example(program)
    for a, b in zip(run(folded, inputs), run(loaded, inputs), strict=True):
        assert torch.equal(a, b)
    assert foldproof.fuse(loaded, inputs).verdict.kind is Kind.PROVED


def test_goes_on_like_any_other_program(program: ExportedProgram) -> None:
    folded, inputs = fold(program), example(program)
    expected = run(program, inputs)
    assert largest_error(expected, run(copy.deepcopy(folded), inputs)) < 2e-6
    assert largest_error(expected, run(folded.run_decompositions(), inputs)) < 2e-6
    assert largest_error(expected, run(torch.export.export(folded.module(), inputs), inputs)) < 2e-6
    unflattened = torch.export.unflatten(folded)
    assert largest_error(expected, list(unflattened(*inputs).values())) < 2e-6


def test_a_deepcopy_whose_names_do_not_match_its_signature(program: ExportedProgram) -> None:
    """copy.deepcopy renames the node "input", which hides a builtin, and leaves the signature as it was."""
    twin = copy.deepcopy(program)
    assert largest_error(run(program, example(program)), run(fold(twin), example(program))) < 2e-6


def test_preserved_module_signatures() -> None:
    """Metadata of folded modules, and of a normalisation that is an output of the program."""
    model, inputs = made(nn.Sequential(conv(), norm()), IMAGE)
    program = torch.export.export(model, inputs, preserve_module_call_signature=("0", "1"))
    folded = foldproof.fuse(program, inputs).program
    unflattened = torch.export.unflatten(folded)
    assert largest_error(run(program, inputs), [unflattened(*inputs)]) < 2e-6
    assert [spec.arg.name for spec in folded.graph_signature.output_specs] == ["conv2d"]
    assert [spec.arg.name for spec in program.graph_signature.output_specs] == ["batch_norm"]


@pytest.mark.parametrize("kind", ["parameter", "buffer", "passing buffer", "constant"])
def test_new_constants_are_of_the_kind_of_the_old(kind: str) -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm()
            weight = torch.randn(6, 3, 3, 3)
            if "buffer" in kind:
                self.register_buffer("weight", weight, persistent=kind == "buffer")
            else:
                self.weight = nn.Parameter(weight) if kind == "parameter" else weight

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(nn.functional.conv2d(x, self.weight))

    model, inputs = made(Held(), IMAGE)
    program = torch.export.export(model, inputs)
    result = foldproof.fuse(program, inputs)
    assert result.verdict.kind is Kind.PROVED
    [old] = [spec for spec in program.graph_signature.input_specs if spec.target == "weight"]
    new = [spec for spec in result.program.graph_signature.input_specs if spec.target]
    assert [spec.target for spec in new] == ["weight_folded", "bias_folded"]
    assert {(spec.kind, spec.persistent) for spec in new} == {(old.kind, old.persistent)}
    file = io.BytesIO()
    torch.export.save(result.program, file)
    file.seek(0)
    assert largest_error(run(program, inputs), run(torch.export.load(file), inputs)) < 2e-6


def test_names_that_are_taken() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(), norm()
            self.conv.weight_folded = nn.Parameter(torch.randn(6, 1, 1))  # beside the convolution's own
            self.conv_bias_folded = nn.Parameter(torch.randn(6, 1, 1))  # the same placeholder as conv.bias_folded

        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(self.norm(self.conv(x)), self.conv.weight_folded).maximum(self.conv_bias_folded)

    model, inputs = made(Taken(), IMAGE)
    program = torch.export.export(model, inputs)
    result = foldproof.fuse(program, inputs)
    assert result.verdict.kind is Kind.PROVED
    assert {"conv.weight_folded_1", "conv.bias_folded_1"} < set(result.program.state_dict)
    assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6


def test_folding_again_what_was_folded() -> None:
    model, inputs = made(nn.Sequential(conv(), norm(), nn.Identity()), IMAGE)
    once = foldproof.fuse(model, inputs).program
    again, _ = made(nn.Sequential(norm()), IMAGE)

    class Chained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = once.module(), again

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    program = torch.export.export(Chained(), inputs)
    result = foldproof.fuse(program, inputs)
    assert result.verdict.kind is Kind.PROVED
    assert all(name.count("folded") == 1 for name in result.program.state_dict)


def test_gradients_flow_to_the_folded_weights() -> None:
    model, inputs = made(nn.Sequential(conv(), norm()), IMAGE)
    model[0].weight.requires_grad_(False)
    folded = foldproof.fuse(model, inputs).program
    assert {name: p.requires_grad for name, p in folded.named_parameters()} == {
        "0.weight_folded": False,
        "0.bias_folded": True,
    }
    module = folded.module()
    module(*inputs).sum().backward()
    assert module.get_parameter("0.bias_folded").grad is not None


def test_the_pass_itself_on_shadows() -> None:
    """foldproof.fuse as a pass: run unmodified on parameters that carry residues."""
    model, inputs = made(nn.Sequential(conv(), norm(), nn.ReLU(), nn.ConvTranspose2d(6, 6, 2), norm()), IMAGE)
    program = torch.export.export(model, inputs)
    verdict = foldproof.prove_pass(lambda p: foldproof.fuse(p, inputs, prove=False).program, program, inputs)
    assert verdict.kind is Kind.PROVED
