"""User passes: watched where they run, tapped in their manager, proved in tests."""

from __future__ import annotations

import functools
import json
import operator
import threading
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager, pass_result_wrapper

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.auditing.copies import Copies
from foldproof.report import html, junit, load, sarif

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


class Dropped(PassBase):
    """Takes out a threshold or rectifier that no value of these inputs reaches."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        for node in graph_module.graph.nodes:
            if node.target in (torch.threshold, torch.relu):
                node.replace_all_uses_with(node.args[0])
        graph_module.graph.eliminate_dead_code()
        graph_module.recompile()
        return PassResult(graph_module, True)


@pytest.mark.parametrize("clips", [lambda x: torch.threshold(x, -1000, 7), lambda x: torch.relu(x + 1000)])
def test_what_all_values_choose_alike_is_no_proof(clips: Callable[[torch.Tensor], torch.Tensor]) -> None:
    program = fx.symbolic_trace(lambda x: clips(x) * 2)
    with foldproof.watch([torch.randn(3, 4)]) as log:
        Dropped()(program)
    (step,) = log.steps
    assert step.verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), str(step.verdict)
    assert step is log.steps[0], "what was judged is not judged again"


def test_a_lone_tensor_is_no_list_of_inputs() -> None:
    with pytest.raises(FoldproofError, match=r"write \(x,\)"), foldproof.watch(torch.randn(3, 4)):  # type: ignore[arg-type]
        pass


def traced() -> fx.GraphModule:
    return fx.symbolic_trace(lambda x, y: (x + y) * torch.relu(x - y))


INPUTS = (torch.randn(3, 4), torch.randn(3, 4))


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_watch() -> None:
    with foldproof.watch(INPUTS) as log:
        SwapOperands(operator.add)(traced())
        SwapOperands(operator.sub)(traced())
    assert [step.verdict.kind for step in log.steps] == [Kind.PROVED, Kind.REFUTED]
    assert [step.name for step in log.refuted] == ["SwapOperands"]
    assert "REFUTED" in str(log)


def test_no_pass_seen_is_no_clean_bill() -> None:
    with foldproof.watch(INPUTS) as log:
        swap(traced())  # a plain function
    assert str(log) == "no pass was seen: plain functions are not watched, use prove_pass for them"
    with foldproof.watch(INPUTS) as log:
        SwapOperands()(traced())
    assert str(log) == "no pass changed a graph"


def test_inputs_that_do_not_fit_are_told() -> None:
    program = torch.export.export(Sum(), INPUTS).module()
    with foldproof.watch((torch.randn(5, 4), torch.randn(5, 4))) as log:
        SwapOperands(torch.ops.aten.add.Tensor)(program)
    (step,) = log.steps
    assert step.verdict.kind is Kind.PROVED, str(step.verdict)
    assert any("the given inputs do not fit this graph" in note for note in step.verdict.notes)
    with foldproof.watch(INPUTS) as log:
        SwapOperands(torch.ops.aten.add.Tensor)(program)
    assert not any("do not fit" in note for note in log.steps[0].verdict.notes)


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


class Shifted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.shape[0]


class Specialised(PassBase):
    """Takes the size that a graph was traced at for its only one."""

    def __init__(self, size: int) -> None:
        self.size = size

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        for node in graph_module.graph.nodes:
            if node.target is torch.ops.aten.sub.Tensor:
                node.args = (node.args[0], self.size)
        return PassResult(graph_module, True)


def test_graphs_with_dynamic_sizes_are_proved_at_several() -> None:
    x = torch.randn(4, 3)
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(Shifted(), (x,), dynamic_shapes=({0: batch},))
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    with foldproof.watch((x,)) as log:
        Specialised(4)(module)
    assert [step.verdict.kind for step in log.steps] == [Kind.REFUTED]
    (size,) = (n.meta["val"].shape[0] for n in program.graph.nodes if n.op == "placeholder")
    assert not size.node.expr.is_number, "the sizes of the program stay dynamic"


def swap(module: fx.GraphModule, target: object = operator.sub) -> PassResult:
    return SwapOperands(target).call(module)


class Swaps:
    def __call__(self, module: fx.GraphModule) -> PassResult:
        return swap(module)

    def run(self, module: fx.GraphModule) -> PassResult:
        return swap(module)


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (swap, "swap"),
        (functools.partial(swap, target=operator.sub), "swap"),
        (pass_result_wrapper(functools.partial(swap)), "swap"),
        (Swaps(), "Swaps"),
        (Swaps().run, "run"),
        (SwapOperands(operator.sub), "SwapOperands"),
        (pass_result_wrapper(SwapOperands(operator.sub)), "SwapOperands"),
    ],
)
@pytest.mark.parametrize("tapped", [True, False])
def test_passes_of_any_form_are_named(one: Callable[..., PassResult], name: str, tapped: bool) -> None:
    manager = PassManager(passes=[one])
    if tapped:
        log = foldproof.tap(manager, INPUTS)
        manager(traced())
    else:
        with foldproof.watch(INPUTS) as log:
            manager(traced())
    assert [step.name for step in log.refuted] == [name]


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
    document = load(pytester.path / "verdicts.json")
    assert [(row["test"], row["verdict"]["kind"]) for row in document["tests"]] == [
        ("test_the_plugin.py::test_wrong", "REFUTED"),
        ("test_the_plugin.py::test_right", "PROVED"),
    ]
    first = "2 verdicts: 1 REFUTED, 1 PROVED; look at test_the_plugin.py::test_wrong first; 1 of 2 tests failed"
    assert f"<h1>{first}</h1>" in html(document)
    assert 'classname="pytest.test_the_plugin" name="test_wrong"' in junit(document)
    assert json.loads(sarif(document))["runs"][0]["results"][0]["message"]["text"].startswith("test_wrong: ")


def test_the_report_has_every_assertion_and_the_counts_of_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest, torch, foldproof
        from torch.fx.passes.infra.pass_base import PassBase, PassResult
        from foldproof.testing import assert_close_enough, assert_equivalent

        X = (torch.randn(3),)
        wrong = (lambda x: x + x, lambda x: 3 * x, X)

        class DropsRelu(PassBase):
            def call(self, module):
                for node in module.graph.nodes:
                    if node.target is torch.relu:
                        node.replace_all_uses_with(node.args[0])
                module.graph.eliminate_dead_code()
                module.recompile()
                return PassResult(module, True)

        def test_equivalent():
            assert_equivalent(lambda x: x + x, lambda x: 2 * x, X)

        def test_refuted():
            assert_equivalent(*wrong)

        def test_refuted_as_expected():
            with pytest.raises(AssertionError):
                assert_equivalent(*wrong)

        def test_numbers():
            assert_close_enough(torch.nn.ReLU(), torch.nn.Sigmoid(), X)

        def test_watch():
            module = torch.fx.symbolic_trace(lambda x: torch.relu(x) + 1)
            with foldproof.watch(X) as log:
                DropsRelu()(module)
            assert not log.refuted

        def test_without(): pass
        def test_skipped(): pytest.skip("not here")
        @pytest.mark.xfail
        def test_xfail(): assert False
        @pytest.fixture
        def broken(): raise ValueError("broken")
        def test_error(broken): pass
        """
    )
    done = pytester.runpytest_subprocess("--foldproof-report", "verdicts.json", "--junitxml", "theirs.xml")
    done.assert_outcomes(passed=3, failed=3, errors=1, skipped=1, xfailed=1)
    document = load(pytester.path / "verdicts.json")
    told = [(row["test"].split("::")[1], row["assertion"], row["verdict"]["kind"]) for row in document["tests"]]
    assert told == [
        ("test_refuted", "assert_equivalent", "REFUTED"),
        ("test_refuted_as_expected", "assert_equivalent", "REFUTED"),
        ("test_numbers", "assert_close_enough", "REFUTED"),
        ("test_watch", "watch: DropsRelu", "REFUTED"),
        ("test_equivalent", "assert_equivalent", "PROVED"),
    ]
    ours, theirs = (
        ElementTree.fromstring(junit(document))[0],
        ElementTree.parse(pytester.path / "theirs.xml").getroot()[0],
    )
    for count in ("tests", "failures", "errors", "skipped"):
        assert ours.attrib[count] == theirs.attrib[count], count
    named = {case.attrib["name"]: [child.tag for child in case] for case in ours}
    assert named["test_refuted_as_expected"] == ["system-out"] and named["test_without"] == []
    found = json.loads(sarif(document))["runs"][0]["results"]
    assert [one["message"]["text"].split(":")[0] for one in found] == ["test_refuted", "test_numbers", "test_watch"]


def test_no_page_is_green_if_a_test_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import torch
        def test_it(prove):
            prove(lambda x: x + x, lambda x: 2 * x, (torch.randn(3),))
            assert False
        """
    )
    pytester.runpytest_subprocess("--foldproof-report", "verdicts.json").assert_outcomes(failed=1)
    page = html(load(pytester.path / "verdicts.json"))
    assert "<h1>1 verdict: 1 PROVED; 1 of 1 test failed</h1>" in page


def test_a_worker_hands_over_its_verdicts(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    test = "def test_{0}(prove):\n    prove(abs, abs, (torch.randn(3),))\n"
    pytester.makepyfile("import torch\n" + test.format("a") + test.format("b"))
    pytester.runpytest_subprocess("-n", "1", "--foldproof-report", "verdicts.json").assert_outcomes(passed=2)
    assert len(load(pytester.path / "verdicts.json")["tests"]) == 2


def test_a_report_that_can_not_be_written_is_told_before_the_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing():\n    pass\n")
    done = pytester.runpytest_subprocess("--foldproof-report", "missing/verdicts.json")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "missing/verdicts.json can't be written" in done.stderr.str()
    done = pytester.runpytest_subprocess("--foldproof-report", "verdicts.html")
    assert done.ret == pytest.ExitCode.USAGE_ERROR and "verdicts.html must end in .json" in done.stderr.str()


def test_the_plugin_does_not_import_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing():\n    import sys\n    assert 'torch' not in sys.modules\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_copies_are_made_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    program = torch.export.export(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval(), INPUTS[:1])
    with foldproof.watch(INPUTS[:1]) as log:
        PassManager(passes=[SwapOperands()])(program.module())
    Copies().copy(program)
    assert log.steps and not [w for w in recwarn if "LeafSpec" in str(w.message)]


class Locked(nn.Module):
    """A leaf that can't be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_a_graph_that_can_not_be_seen_is_no_obstacle() -> None:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
            return isinstance(m, Locked)

    class Rename(PassBase):
        def call(self, graph_module: fx.GraphModule) -> PassResult:
            for node in graph_module.graph.nodes:
                node.target = torch.add if node.target is operator.add else node.target
            graph_module.recompile()
            return PassResult(graph_module, True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaf = Locked()

        def forward(self, x: Tensor) -> Tensor:
            return self.leaf(x) + 1.0  # type: ignore[no-any-return]

    model = Model()
    graph_module = fx.GraphModule(model, Tracer().trace(model))
    with foldproof.watch((torch.randn(2),)) as log:
        Rename()(graph_module)
    assert torch.add in [n.target for n in graph_module.graph.nodes]
    (step,) = log.steps
    assert step.verdict.kind is Kind.UNDECIDED and "can't be seen" in step.verdict.reason, str(step.verdict)
