"""Declarations of compilers and hooks are true, and doctor reports missing hooks."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.fx.passes.infra.pass_base
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

import foldproof
from foldproof.auditing.compilers import find_compiler
from foldproof.auditing.externals import External, find_missing
from foldproof.auditing.log import Log
from foldproof.auditing.loops.needs import NEEDS
from foldproof.auditing.loops.templates import PRODUCTS
from foldproof.auditing.taps import HOOKS
from foldproof.auditing.taps.fx_passes import tap_passes
from foldproof.auditing.taps.hooks import Hook
from foldproof.cli.doctor import examine
from foldproof.compiler_catalog import DECLARED
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind


def test_what_is_declared_can_be_run() -> None:
    assert all(find_compiler(name).declared is one for name, one in DECLARED.items())


def test_an_extra_installs_what_a_compiler_is_made_of() -> None:
    extras = examine()["extras"]
    for one in DECLARED.values():
        assert (one.extra is None) == (not one.packages)
        if one.extra is not None:
            assert extras[one.extra]["packages"].keys() <= set(one.packages)
            assert f"audit --compiler {one.name}" in extras[one.extra]["gives"]


def test_export_is_audited_by_its_decompositions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU()).eval()
    found = foldproof.audit(model, (torch.randn(1, 3, 8, 8),), compiler="export")
    (step,) = (step for step in found.steps if step.fired)
    assert (step.name, step.verdict.kind) == ("run_decompositions", Kind.PROVED)
    assert found.end_to_end is not None and found.end_to_end.verdict.kind is Kind.ROUNDING


def test_a_package_of_aotinductor_is_audited_down_to_its_loops() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8)).eval()
    found = foldproof.audit(model, (torch.randn(3, 4),), compiler="aotinductor", locate=False)
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}
    assert {"AOTAutograd", "lowering"} <= {step.name for step in found.steps if step.fired}
    assert "the lowering and the scheduling are proved" in found.conclusion
    assert found.end_to_end is not None and found.end_to_end.verdict.kind is Kind.ROUNDING
    assert found.compiled == "the package of AOTInductor"


def test_a_package_is_compared_with_integers_and_state() -> None:
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)
            self.register_buffer("sum", torch.zeros(4))

        def forward(self, i: Tensor) -> Tensor:
            self.sum.add_(self.table(i).sum(0))
            return self.table(i) + self.sum

    found = foldproof.audit(Seen(), (torch.tensor([1, 4]),), compiler="aotinductor", locate=False)
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}
    assert found.end_to_end is not None and found.end_to_end.identical


@pytest.mark.parametrize("externals", [HOOKS, NEEDS], ids=["hooks", "loops"])
def test_every_name_is_there_in_what_is_installed(externals: Sequence[External]) -> None:
    assert not find_missing(externals)
    assert len(set(map(str, externals))) == len(externals)


def test_every_name_that_loops_are_read_by_is_declared() -> None:
    """A name of Inductor's nodes that is used and not declared would be missed by nobody."""
    source = Path(foldproof.__file__).parent
    used = set(PRODUCTS)
    for path in [*(source / "auditing/loops").glob("*.py"), source / "torch_internals.py"]:
        text = path.read_text("utf-8")
        used |= set(re.findall(r"\b(?:ir|inductor_ir\(\))\.([A-Z]\w+)", text))
        used |= set(re.findall(r'kind [!=]= "(\w*SchedulerNode)"', text))
        for names in re.findall(r"from torch\._inductor\.(?:virtualized|utils) import (.+)", text):
            used |= set(names.split(", "))
    assert used == {name for need in NEEDS for name in (need.name, need.older) if name} - {"tensor"}


def test_doctor_tells_a_name_of_the_loops_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(importlib.import_module("torch._inductor.ir"), "WhileLoop")
    found = examine()["loops"]
    assert found["declared"] == len(NEEDS)
    assert found["missing"] == [
        "torch._inductor.ir.WhileLoop is missing, so loops with kernels that Inductor calls can't be read, and their"
        " steps are UNDECIDED"
    ]


def test_a_name_that_a_release_changed_is_found_by_either(monkeypatch: pytest.MonkeyPatch) -> None:
    (need,) = (need for need in NEEDS if need.older)
    ir = importlib.import_module("torch._inductor.ir")
    for name in (need.name, need.older):
        monkeypatch.delattr(ir, name, raising=False)
        monkeypatch.setattr(ir, "Switch" if name == "Conditional" else "Conditional", object, raising=False)
        assert need.find_owner() is ir
    for name in (need.name, need.older):
        monkeypatch.delattr(ir, name, raising=False)
    assert need.find_owner() is None


def test_doctor_tells_a_hook_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(importlib.import_module("torch._inductor.fx_passes.pre_grad"), "fuse_fx")
    assert examine()["hooks"] == {
        "declared": len(HOOKS),
        "missing": [
            "torch._inductor.fx_passes.pre_grad.fuse_fx is missing, so the pass fuse_fx has no step of its own"
        ],
    }


def test_packages_that_are_not_installed_miss_no_hook() -> None:
    assert not find_missing([Hook("no_such_package.passes", "fuse", "the pass fuse")])
    assert find_missing([Hook("torch.no_such_module", "fuse", "the pass fuse")])


def test_a_module_that_wants_a_package_which_is_not_installed_misses_no_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_a_need.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not find_missing([Hook("with_a_need", "fuse", "the pass fuse")])


class Nothing(PassBase):
    def call(self, graph_module: fx.GraphModule) -> PassResult:
        return PassResult(graph_module, False)


def test_a_tap_does_without_a_hook_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fx.symbolic_trace(nn.ReLU())
    monkeypatch.delattr(torch.fx.passes.infra.pass_manager.PassManager, "__call__")
    log = Log()
    with tap_passes(log):
        Nothing()(module)
    assert [change.name for change in log.changes] == ["Nothing"]


def test_there_is_no_audit_without_an_essential_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(importlib.import_module("torch._inductor.compile_fx"), "_recursive_pre_grad_passes")
    with pytest.raises(FoldproofError, match="_recursive_pre_grad_passes is missing, so torch.compile can't be"):
        foldproof.audit(nn.ReLU(), (torch.ones(2),), compiler="inductor")


def test_a_hook_is_patched_for_a_while() -> None:
    hook = Hook("torch.fx.passes.infra.pass_base", "PassBase.ensures", "nothing")
    before = PassBase.__dict__["ensures"]

    def counting(original: object) -> object:
        return lambda self, module: seen.append(module)

    seen: list[Tensor] = []
    with hook.patch(counting):
        Nothing().ensures("module")  # type: ignore[arg-type]
    assert seen == ["module"]
    assert PassBase.__dict__["ensures"] is before
