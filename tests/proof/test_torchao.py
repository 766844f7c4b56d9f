"""torchao's BatchNorm folding, unmodified, run on shadows: right folds are proved, wrong ones refuted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import foldproof
from foldproof import Kind

from .models import CalledTwice, ReadTwice, trained

utils = pytest.importorskip("torchao.quantization.pt2e.utils")

ORDINARY = {
    "conv1d": (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), (2, 3, 9)),
    "conv2d": (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), (2, 3, 8, 8)),
    "conv2d without bias, grouped": (nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), (2, 4, 8, 8)),
    "conv3d": (nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4), (2, 3, 4, 4, 4)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 8, 3, stride=2), nn.BatchNorm1d(8), (2, 4, 8)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 8, 3, stride=2), nn.BatchNorm2d(8), (2, 4, 8, 8)),
    "linear": (nn.Linear(3, 5), nn.BatchNorm1d(5), (2, 3)),
    "linear without bias": (nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5), (2, 3)),
}


def fuse(gm: fx.GraphModule) -> None:
    utils._fuse_conv_bn_(gm)
    utils._fuse_linear_bn_(gm)


def fuse_as_before_4242(gm: fx.GraphModule) -> None:
    """Before torchao #4242 the rank was not looked at; without ``meta["val"]`` it cannot be."""
    for node in gm.graph.nodes:
        node.meta.pop("val", None)
    utils._fuse_linear_bn_(gm)


def prove_on(pass_fn: Any, model: nn.Module, *inputs: Tensor) -> tuple[foldproof.Verdict, fx.GraphModule]:
    module = torch.export.export(trained(model), inputs).module()
    return foldproof.prove_pass(pass_fn, module, inputs), module


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_folds_are_proved(name: str) -> None:
    layer, norm, shape = ORDINARY[name]
    torch.manual_seed(0)
    verdict, module = prove_on(fuse, nn.Sequential(layer, norm, nn.ReLU()), torch.randn(shape))
    assert verdict.kind is Kind.PROVED, str(verdict)
    assert verdict.proof is not None and verdict.proof.log2_error < -40
    assert str(verdict.claim) == "all inputs and all parameters"
    # The pass did fold (elsewhere the claim would be empty), and the caller's program is as it was.
    fuse(module_copy := torch.export.export(trained(nn.Sequential(layer, norm)), (torch.randn(shape),)).module())
    assert not any("batch_norm" in str(n.target) for n in module_copy.graph.nodes)
    assert any("batch_norm" in str(n.target) for n in module.graph.nodes)


def test_seed_1_before_the_mend_is_refuted() -> None:
    torch.manual_seed(0)
    verdict, _ = prove_on(fuse_as_before_4242, nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), torch.randn(2, 5, 3))
    assert verdict.kind is Kind.REFUTED
    witness = verdict.counterexample
    assert witness is not None and witness.difference > 1000 * witness.floor
    assert verdict.difference is not None and verdict.difference.operator == "aten.linear.default"
    # The witness stands by itself: the unfolded model gives the value that it names.
    model = trained(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))).double()
    names = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in witness.parameters.items():
            names[name].copy_(tensor)
        assert model(witness.inputs[0].double())[witness.index].item() == pytest.approx(witness.before)


def test_seed_1_as_released_is_proved() -> None:
    with pytest.warns(UserWarning, match="3-D"):
        verdict, _ = prove_on(fuse, nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), torch.randn(2, 5, 3))
    assert verdict.kind is Kind.PROVED


WRONG = {
    "output read twice": (ReadTwice(), (2, 3, 4, 4)),
    "conv called twice": (CalledTwice(), (2, 3, 5, 5)),
    "unbatched conv1d": (nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)), (4, 10)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_folds_of_the_release_are_refuted(name: str) -> None:
    model, shape = WRONG[name]
    torch.manual_seed(0)
    verdict, _ = prove_on(fuse, model, torch.randn(shape))
    assert verdict.kind is Kind.REFUTED, str(verdict)
    assert verdict.counterexample is not None and verdict.difference is not None


def test_a_fresh_batch_norm_hides_nothing() -> None:
    """Untrained statistics make seed 1's wrong fold right (every channel has the same scale); the pass is wrong."""
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).eval()
    x = torch.randn(2, 5, 3)
    verdict = foldproof.prove_pass(fuse_as_before_4242, torch.export.export(model, (x,)).module(), (x,))
    assert verdict.kind is Kind.REFUTED, str(verdict)
    assert verdict.counterexample is not None and "random inputs and parameters" in verdict.counterexample.description
