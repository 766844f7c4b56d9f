"""Passes of one's own: watched where they run, tapped in their manager, proved in tests."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest
import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager

import foldproof
from foldproof import FoldproofError, Kind

pytest_plugins = ["pytester"]


class SwapOperands(PassBase):
    """a + b → b + a, and, wrongly, a − b → b − a."""

    def __init__(self, *targets: object) -> None:
        self.targets = targets

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        for node in graph_module.graph.nodes:
            if node.target in self.targets:
                node.args = (node.args[1], node.args[0])
        graph_module.recompile()
        return PassResult(graph_module, True)


def test_a_lone_tensor_is_no_list_of_inputs() -> None:
    with pytest.raises(FoldproofError, match=r"write \(x,\)"), foldproof.watch(torch.randn(3, 4)):  # type: ignore[arg-type]
        pass


def traced() -> fx.GraphModule:
    return fx.symbolic_trace(lambda x, y: (x + y) * torch.relu(x - y))


INPUTS = (torch.randn(3, 4), torch.randn(3, 4))


def test_watch() -> None:
    with foldproof.watch(INPUTS) as log:
        SwapOperands(operator.add)(traced())
        SwapOperands(operator.sub)(traced())
    assert [step.verdict.kind for step in log.steps] == [Kind.PROVED, Kind.REFUTED]
    assert [step.name for step in log.guilty] == ["SwapOperands"]
    assert "REFUTED" in str(log)


def test_tap() -> None:
    manager = PassManager(passes=[SwapOperands(operator.add), SwapOperands(operator.sub)])
    log = foldproof.tap(manager, INPUTS)
    manager(traced())
    assert [step.verdict.kind for step in log.steps] == [Kind.PROVED, Kind.REFUTED]


def test_a_watched_manager_is_a_chain_of_its_passes() -> None:
    manager = PassManager(passes=[SwapOperands(operator.add), SwapOperands(operator.sub)])
    with foldproof.watch(INPUTS) as log:
        manager(traced())
    assert [step.name for step in log.steps] == ["SwapOperands", "SwapOperands"]


def test_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import torch

        def test_right(prove):
            prove(lambda x: x + x, lambda x: 2 * x, (torch.randn(3),))

        def test_wrong(prove):
            prove(lambda x: x + x, lambda x: 3 * x, (torch.randn(3),))
        """
    )
    done = pytester.runpytest_subprocess("--foldproof-report", "verdicts.json")
    done.assert_outcomes(passed=1, failed=1)
    assert "pytest_plugin.py" not in done.stdout.str(), "what is shown is the line of the test"
    assert '"REFUTED"' in (Path(pytester.path) / "verdicts.json").read_text()


def test_the_plugin_does_not_import_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing():\n    import sys\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
