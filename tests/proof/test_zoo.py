"""PyTorch proves itself: on every architecture of the zoo, with no wrong answer and hardly an open question."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest
import torch
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import foldproof
from foldproof.verdict import Kind, Verdict
from zoo import ZOO, Family
from zoo.findings import FINDINGS, KNOWN, Finding
from zoo.self_proof import prove_itself, refute_spoilt, spoilt

IN_CI = (
    *("regnet", "convnext", "bit", "superpoint", "efficientloftr_repvgg", "speecht5_postnet", "informer_distilling"),
    *("vit", "dinov2_swiglu", "superglue_keypoints", "superglue_propagation"),
    *("whisper_encoder", "patchtst", "bert", "t5", "gpt2", "bart", "mamba2"),
    *(name for name in ZOO if ZOO[name].family is Family.HEAD),
)
"""Some of each family, and all of `KNOWN`; the others take several times as long."""


def some(names: Iterable[str], in_ci: Collection[str]) -> list[Any]:
    """The names as parameters, of which CI runs those ``in_ci``."""
    return [pytest.param(name, marks=() if name in in_ci else pytest.mark.exhaustive) for name in names]


def assert_proved_in_general(verdict: Verdict) -> None:
    assert verdict.kind is Kind.PROVED, verdict
    assert verdict.claim is not None and verdict.claim.all_parameters
    assert verdict.proof is not None and verdict.proof.log2_error < -40


@pytest.mark.parametrize("name", some(ZOO, IN_CI))
def test_pytorch_proves_itself(name: str) -> None:
    result = prove_itself(ZOO[name])
    assert_proved_in_general(result.exported)
    if name in KNOWN:
        assert result.decomposed.kind is Kind.UNDECIDED
        assert result.decomposed.difference is not None and result.decomposed.difference.operator == "aten.view.default"
        assert result.functional is not None
        assert_proved_in_general(result.functional)
    else:
        assert_proved_in_general(result.decomposed)
    assert result.sensitivity > 0.05  # other inputs move every output, so comparing outputs says something


WRONG = ("resnet", "vit", "whisper_encoder", "patchtst", "llama", "tabular_mlp")
"""One of each family; docs/self_proof.md has them all."""


@pytest.mark.parametrize("name", some(WRONG, ("tabular_mlp",)))
def test_a_wrong_program_is_refuted(name: str) -> None:
    verdict = refute_spoilt(ZOO[name])
    assert verdict.kind is Kind.REFUTED, verdict
    assert verdict.counterexample is not None and verdict.difference is not None


def test_zoo_is_large_and_few_questions_are_open() -> None:
    assert len(ZOO) >= 50
    assert set(KNOWN) <= set(IN_CI) <= set(ZOO)
    assert {ZOO[name].family for name in IN_CI} == {one.family for one in ZOO.values()}
    assert 10 * len(KNOWN) <= len(ZOO)
    assert not any(ZOO[name].family is Family.CONVOLUTION for name in KNOWN)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.models[0])
def test_defects_of_pytorch_are_still_there(finding: Finding) -> None:
    """When this fails PyTorch has been mended: take the finding out, and the zoo has more proofs."""
    finding.reproduce()


def test_models_are_the_same_at_every_build() -> None:
    first, second = (ZOO["mobilenet_v2"].build() for _ in range(2))
    pairs = zip(
        tree_leaves((first.model.state_dict(), first.inputs)), tree_leaves((second.model.state_dict(), second.inputs))
    )
    assert all(torch.equal(a, b) for a, b in pairs)


HALF = {
    f"{name}-{dtype}": (name, dtype) for name in ("resnet", "convnext", "mamba2") for dtype in ("float16", "bfloat16")
}


@pytest.mark.parametrize("case", some(HALF, ("mamba2-float16",)))
def test_half_precision(case: str) -> None:
    name, dtype = HALF[case][0], getattr(torch, HALF[case][1])
    sample = ZOO[name].build()
    model = sample.model.to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in sample.inputs)
    program = torch.export.export(model, inputs)
    assert_proved_in_general(foldproof.prove(program, program.run_decompositions(), inputs, seed=0))
    assert_proved_in_general(foldproof.prove(model, program, inputs, seed=0))
    assert foldproof.prove(program, spoilt(program), inputs, seed=0).proof is None


@pytest.mark.parametrize("name", some(("vit", "wav2vec2_conformer", "llama"), ("vit",)))
def test_dynamic_batch(name: str) -> None:
    sample = ZOO[name].build()
    program = torch.export.export(sample.model, sample.inputs, dynamic_shapes=({0: Dim("batch")},))
    verdict = foldproof.prove(program, program.run_decompositions(), sample.inputs, seed=0)
    assert_proved_in_general(verdict)
    assert verdict.proof is not None and len(set(verdict.claim.shapes)) > 2
    assert foldproof.prove(program, spoilt(program), sample.inputs, seed=0).kind is Kind.REFUTED
