"""The commands as a user meets them: what is printed, written and returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from foldproof.cli import main
from foldproof.version import __version__

INPUTS_ARE_NOT_IN_FILES = {"models.py", "__pycache__"}


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Foldproof:
    """Runs ``foldproof ARGS`` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *args: str) -> Ran:
        self._capture.readouterr()
        status = main(args)
        return Ran(status, *self._capture.readouterr())


@pytest.fixture
def foldproof(capsys: pytest.CaptureFixture[str]) -> Foldproof:
    return Foldproof(capsys)


def written() -> set[str]:
    """Names of all files in the working folder that a command has left there, hidden ones included."""
    return {path.name for path in Path().iterdir()} - INPUTS_ARE_NOT_IN_FILES


def export(name: str, path: str) -> None:
    from foldproof.program.loading import load_spec

    loaded = load_spec(f"models.py:{name}")
    torch.export.save(torch.export.export(loaded.program, loaded.require_inputs()), path)


class TestExplain:
    def test_says_where_why_and_what_would_change_it(self, foldproof: Foldproof) -> None:
        ran = foldproof("explain", "models.py:residual", "--json", "why.json")
        assert ran.status == 0, ran
        assert "1 operator not folded" in ran.out
        assert "is also read by sigmoid" in ran.out
        assert "remedy" not in ran.out, "any change of the graph is another function"
        [one] = json.loads(Path("why.json").read_text())["declined"]
        assert one["operator"] == "aten.batch_norm.default" and not one["hint"]

    def test_equal_reasons_are_told_once(self, foldproof: Foldproof) -> None:
        ran = foldproof("explain", "models.py:training", "--json", "why.json")
        assert "14 operators not folded" in ran.out and ran.out.count("it is in training mode") == 1
        assert "… and 4 more, 14 in all; --json lists them" in ran.out
        assert "remedy: call model.eval() before the export" in ran.out
        assert len(json.loads(Path("why.json").read_text())["declined"]) == 14

    def test_nothing_left(self, foldproof: Foldproof) -> None:
        assert "every normalisation can be folded" in foldproof("explain", "models.py:conv_bn").out


class TestFuse:
    def test_in_training_mode_nothing_is_saved(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:training", "-o", "out.pt2", "--json", "out.json")
        assert ran.status == 2 and ran.out == ""
        assert ran.err.count("\n") == 1
        assert "the model is in training mode: 14 normalisations would take the statistics" in ran.err
        assert "call model.eval()" in ran.err
        assert written() == set()

    def test_what_no_file_can_hold_is_refused_first(
        self, foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("foldproof.fusion.api.prove_programs", None)
        ran = foldproof("fuse", "models.py:unnamed_container", "-o", "out.pt2")
        assert ran.status == 2 and written() == set()
        assert "models.py:unnamed_container returns a Pair, which torch.export.save can't save" in ran.err

    def test_rules_can_be_chosen(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2", "--passes", "arithmetic")
        assert ran.status == 0 and "no rewrites" in ran.out
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "no.pt2", "--passes", "arithmetic,nonsense")
        assert ran.status == 2 and "there is no pass 'nonsense': choose from batch_norm" in ran.err
        assert written() == {"out.pt2"}

    @pytest.mark.parametrize("seconds", [[1e-5] * 3, [3e-5] * 3])
    def test_parallel_linears(
        self, foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch, seconds: list[float]
    ) -> None:
        monkeypatch.setattr(
            "foldproof.fusion.batching.timing.recall_or_measure", lambda *_: {"before": [2e-5] * 3, "after": seconds}
        )
        ran = foldproof("fuse", "models.py:gate", "-o", "out.pt2", "--passes", "batch_linears", "--json", "all.json")
        assert ran.status == 0
        found = json.loads(Path("all.json").read_text())
        if seconds[0] < 2e-5:
            assert "20 → 10 µs" in " ".join(ran.out.split())
            assert [row["speed"]["after"] for row in found["rewrites"]] == [1e-5]
        else:
            assert "20 → 30 µs" in found["declined"][0]["reason"]

    def test_a_limit_on_the_error(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2", "--accuracy-limit", "0.001")
        assert ran.status == 0 and "loses digits" in ran.out and "no rewrites" in ran.out

    def test_saves_a_folded_program_that_computes_the_same(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2")
        assert ran.status == 0, ran
        assert written() == {"out.pt2"}
        export("conv_bn", "before.pt2")
        before, after = torch.export.load("before.pt2"), torch.export.load("out.pt2")
        assert not [node for node in after.graph.nodes if "batch_norm" in str(node.target)]
        assert before.example_inputs is not None
        args, _ = before.example_inputs
        torch.testing.assert_close(after.module()(*args), before.module()(*args))

    def test_prints_what_happened(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2")
        lines = [line.split() for line in ran.out.splitlines()]
        assert ["aten.batch_norm.default", "1", "0"] in lines
        assert ["all", "operators", "3", "2"] in lines
        assert "1 rewrite: 1 PROVED" in ran.out
        assert "nothing declined" in ran.out
        assert "chance of being wrong: below 2^-" in ran.out
        assert "saved out.pt2 (" in ran.out
        assert ran.err == ""

    def test_a_long_list_is_cut_and_counted(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:deep", "-o", "out.pt2")
        assert "14 rewrites: 14 PROVED" in ran.out
        assert "… and 4 more: 4 PROVED" in ran.out

    def test_declined_with_reason_and_source_line(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:residual", "-o", "out.pt2")
        assert ran.status == 0, ran
        assert "no rewrites" in ran.out
        assert "1 declined" in ran.out
        assert "batch_norm" in ran.out
        line = Path("models.py").read_text().splitlines().index("        return self.bn(y) + y.sigmoid()") + 1
        assert f"models.py:{line}" in ran.out
        assert written() == {"out.pt2"}

    def test_kwargs_and_dynamic_shapes_reach_the_program(self, foldproof: Foldproof) -> None:
        assert foldproof("fuse", "models.py:with_kwargs", "-o", "kwargs.pt2").status == 0
        image = torch.randn(2, 3, 8, 8)
        assert torch.export.load("kwargs.pt2").module()(input=image).shape == (2, 4, 6, 6)
        assert foldproof("fuse", "models.py:dynamic", "-o", "dynamic.pt2").status == 0
        assert torch.export.load("dynamic.pt2").module()(torch.randn(7, 3, 8, 8)).shape == (7, 4, 6, 6)

    def test_takes_a_pt2_file_and_may_replace_it(self, foldproof: Foldproof) -> None:
        export("conv_bn", "model.pt2")
        assert foldproof("fuse", "model.pt2", "-o", "model.pt2").status == 0
        assert not [n for n in torch.export.load("model.pt2").graph.nodes if "batch_norm" in str(n.target)]
        assert written() == {"model.pt2"}

    def test_its_output_can_be_fused_again(self, foldproof: Foldproof) -> None:
        assert foldproof("fuse", "models.py:conv_bn", "-o", "once.pt2").status == 0
        ran = foldproof("fuse", "once.pt2", "-o", "twice.pt2")
        assert ran.status == 0, ran
        assert "no rewrites" in ran.out

    def test_json_holds_the_whole_result(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:deep", "-o", "out.pt2", "--json", "out.json")
        assert "wrote out.json" in ran.out
        result = json.loads(Path("out.json").read_text())
        assert len(result["rewrites"]) == 14
        assert {rewrite["verdict"]["kind"] for rewrite in result["rewrites"]} == {"PROVED"}
        assert result["declined"] == []
        assert result["verdict"]["proof"]["log2_error"] < -40
        assert written() == {"out.pt2", "out.json"}

    def test_a_refuted_program_is_not_saved(self, foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:
        import dataclasses

        import foldproof as library
        from foldproof.verdict import Kind, Verdict

        real = library.fuse

        def broken(*args: object, **kwargs: object) -> object:
            return dataclasses.replace(real(*args, **kwargs), verdict=Verdict(Kind.REFUTED, "the outputs differ"))

        monkeypatch.setattr(library, "fuse", broken)
        Path("out.pt2").write_text("older")
        ran = foldproof("fuse", "models.py:conv_bn", "-o", "out.pt2", "--json", "out.json")
        assert ran.status == 1
        assert "REFUTED: the outputs differ" in ran.out
        assert "not saved" in ran.out
        assert Path("out.pt2").read_text() == "older"
        assert json.loads(Path("out.json").read_text())["verdict"]["kind"] == "REFUTED"


class TestFoldQAT:
    def test_folds_and_says_how_far(self, foldproof: Foldproof) -> None:
        ran = foldproof("fold-qat", "models.py:quantized", "-o", "out.pt2", "--json", "out.json")
        assert ran.status == 0, ran
        assert "1 operator folded" in ran.out and "PROVED_WITHIN" in ran.out and "nothing declined" in ran.out
        program = torch.export.load("out.pt2")
        assert not any("batch_norm" in node.name for node in program.graph.nodes)
        [one] = json.loads(Path("out.json").read_text())["folded"]
        assert one["chain"] == ["batch_norm"] and 0 < one["bound"] < 1e-3 * one["range"]

    def test_a_bias_without_a_chain_is_no_fold(self, foldproof: Foldproof) -> None:
        ran = foldproof("fold-qat", "models.py:quantized_biases", "-o", "out.pt2", "--html", "out.html")
        assert ran.status == 0 and "1 operator folded, 1 bias quantized, without a chain\n" in ran.out, ran
        assert "<h1>1 operator folded, 1 bias quantized, nothing declined: " in Path("out.html").read_text()

    def test_float_biases(self, foldproof: Foldproof) -> None:
        assert foldproof("fold-qat", "models.py:quantized", "-o", "out.pt2", "--float-biases").status == 0
        assert not any(t.dtype == torch.int32 for t in torch.export.load("out.pt2").state_dict.values())

    def test_nothing_to_fold(self, foldproof: Foldproof) -> None:
        ran = foldproof("fold-qat", "models.py:relu", "-o", "out.pt2")
        assert ran.status == 0 and "nothing to fold" in ran.out

    def test_fuse_names_it(self, foldproof: Foldproof) -> None:
        ran = foldproof("fuse", "models.py:quantized", "-o", "out.pt2")
        assert ran.status == 0 and "`foldproof fold-qat` folds the chains" in ran.out, ran.out


class TestProve:
    def test_a_fused_program_against_its_original(self, foldproof: Foldproof) -> None:
        export("conv_bn", "before.pt2")
        assert foldproof("fuse", "before.pt2", "-o", "after.pt2").status == 0
        ran = foldproof("prove", "before.pt2", "after.pt2")
        assert ran.status == 0, ran

    def test_an_onnx_file(self, foldproof: Foldproof) -> None:
        pytest.importorskip("onnxscript")
        export("conv_bn", "model.pt2")
        program = torch.export.load("model.pt2")
        torch.onnx.export(program, f="model.onnx", dynamo=True, verbose=False)
        ran = foldproof("prove", "model.pt2", "model.onnx", "--json", "verdict.json")
        assert ran.status == 0 and ran.out.startswith("PROVED"), ran
        assert json.loads(Path("verdict.json").read_text())["kind"] == "PROVED"
        ran = foldproof("prove", "model.onnx", "model.onnx")
        assert ran.status == 0 and ran.out.startswith("PROVED"), ran
        ran = foldproof("prove", "models.py:conv_bn", "missing.onnx")
        assert ran.status == 2 and "missing.onnx does not exist" in ran.err

    def test_proved(self, foldproof: Foldproof) -> None:
        export("conv_bn", "model.pt2")
        ran = foldproof("prove", "models.py:conv_bn", "model.pt2", "--json", "verdict.json")
        assert ran.status == 0, ran
        assert ran.out.startswith("PROVED: ")
        assert json.loads(Path("verdict.json").read_text())["kind"] == "PROVED"

    def test_a_port_by_its_conversion(self, foldproof: Foldproof) -> None:
        pair = ("prove", "models.py:conv_bn", "models.py:port", "--convert")
        ran = foldproof(*pair, "models.py:renamed")
        assert ran.status == 0 and ran.out.startswith("PROVED: "), ran
        assert "all inputs and all parameters" in ran.out
        ran = foldproof(*pair, "models.py:renamed", "--inverse", "models.py:renamed_back")
        assert ran.status == 0 and "the inverse conversion returns every checkpoint" in ran.out, ran
        ran = foldproof(*pair, "models.py:without_a_bias")
        assert ran.status == 1, ran
        assert "first difference: 0 (Conv2d); in the second program model.layers.0 (Conv2d)" in ran.out, ran.out
        assert "note: the conversion does not set layers.0.bias of the port" in ran.out
        assert "note: the conversion: layers.0.weight is 0.weight" in ran.out
        ran = foldproof(*pair, "models.py:nothing")
        assert ran.status == 2 and "has no callable named 'nothing'" in ran.err

    def test_configurations_of_a_port(self, foldproof: Foldproof) -> None:
        port = ("prove", "models.py:linear", "models.py:linear", "--convert", "models.py:transposed_if_square")
        ran = foldproof(*port, "--configuration", "width=3", "--configuration", "width=5, out=2")
        assert ran.status == 0 and "in 2 configurations: width=3; width=5, out=2" in ran.out, ran
        ran = foldproof(*port, "--configuration", "width=3", "--configuration", "width=4", "--json", "verdict.json")
        assert ran.status == 1 and "in the configuration width=4" in ran.out, ran
        assert json.loads(Path("verdict.json").read_text())["kind"] == "REFUTED"
        for text in ("width", "width=", "width=x", "3"):
            ran = foldproof(*port, "--configuration", text)
            assert ran.status == 2 and "give names and values, such as heads=4,groups=2" in ran.err, ran

    @pytest.mark.parametrize("other", ["models.py:without_bias_of_bn", "models.py:relu"])
    def test_refuted_with_a_witness(self, foldproof: Foldproof, other: str) -> None:
        before = "models.py:conv_bn" if "bn" in other else "models.py:sigmoid"
        ran = foldproof("prove", before, other, "--json", "verdict.json")
        assert ran.status == 1, ran
        assert ran.out.startswith("REFUTED: ")
        assert "counterexample: " in ran.out
        assert json.loads(Path("verdict.json").read_text())["counterexample"]["difference"] > 0

    def test_undecided_names_the_operator(self, foldproof: Foldproof) -> None:
        ran = foldproof("prove", "models.py:sparse", "models.py:sparse")
        assert ran.status == 3, ran
        assert ran.out.startswith("UNDECIDED: ")
        assert "to_sparse" in ran.out


class TestCompare:
    def test_rounding_with_its_explanation(self, foldproof: Foldproof) -> None:
        export("conv_bn", "model.pt2")
        ran = foldproof("compare", "models.py:conv_bn", "--against", "model.pt2", "--report", "report.md")
        assert ran.status == 0, ran
        assert ran.out.startswith("ROUNDING: bit-identical on all 24 inputs")
        assert "wrote report.md" in ran.out
        assert "rounding, not a bug" in Path("report.md").read_text()

    def test_a_backend_compiles_the_reference(self, foldproof: Foldproof) -> None:
        ran = foldproof("compare", "models.py:dynamic", "--against", "aot_eager", "--json", "result.json")
        assert ran.status == 0, ran
        result = json.loads(Path("result.json").read_text())
        assert result["against"] == "torch.compile (aot_eager)"
        assert result["verdict"]["kind"] == "ROUNDING"

    def test_refuted_with_a_bug_report(self, foldproof: Foldproof) -> None:
        export("without_bias_of_bn", "other.pt2")
        ran = foldproof(
            "compare",
            "models.py:conv_bn",
            "--against",
            "other.pt2",
            "--json",
            "result.json",
            "--report",
            "bug.md",
            "-v",
        )
        assert ran.status == 1, ran
        assert ran.out.startswith("REFUTED: ") and "first difference: batch_norm" in ran.out
        assert "### Versions" in Path("bug.md").read_text()
        assert json.loads(Path("result.json").read_text())["verdict"]["counterexample"]["difference"] > 0

    def test_saved_outputs(self, foldproof: Foldproof) -> None:
        export("conv_bn", "model.pt2")
        export("conv_bn", "model.pt2")
        program = torch.export.load("model.pt2")
        assert program.example_inputs is not None
        torch.save(program.module()(*program.example_inputs[0]).detach() + 0.1, "outputs.pt")
        ran = foldproof("compare", "model.pt2", "--against", "outputs.pt", "--verbose")
        assert ran.status == 1, ran
        assert "there are numbers for the given inputs only" in ran.out

    def test_random_numbers_are_drawn_from_the_same_states(self, foldproof: Foldproof) -> None:
        ran = foldproof("compare", "models.py:noisy", "--against", "eager")
        assert ran.status == 0 and ran.out.startswith("ROUNDING: bit-identical"), ran

    def test_other_random_numbers_are_undecided(self, foldproof: Foldproof) -> None:
        ran = foldproof("compare", "models.py:noisy", "--against", "inductor")
        assert ran.status == 3, ran
        assert ran.out.startswith("UNDECIDED: ") and "fallback_random" in ran.out


BAD = [
    (["fuse", "missing.pt2", "-o", "out.pt2"], "missing.pt2 does not exist"),
    (["fuse", "truncated.pt2", "-o", "out.pt2"], "truncated.pt2 is truncated"),
    (["fuse", "inputless.pt2", "-o", "out.pt2"], "inputless.pt2 carries no example inputs"),
    (["fuse", "no_such_module_anywhere:make", "-o", "out.pt2"], "No module named"),
    (["fuse", "models.py:no_such", "-o", "out.pt2"], "no callable named 'no_such'"),
    (["fuse", "models.py:image", "-o", "out.pt2"], "must return (model, args)"),
    (["fuse", "models.py:wrong_shape", "-o", "out.pt2"], "models.py:wrong_shape does not run on its inputs"),
    (["fuse", "models.py:unexportable", "-o", "out.pt2"], "Branches can't be exported"),
    (["fuse", "models.py:conv_bn", "-o", "no/such/folder/out.pt2"], "no/such/folder"),
    (["fuse", "models.py:conv_bn", "-o", "folder.pt2"], "folder.pt2 can't be written"),
    (["fuse", "models.py:conv_bn", "-o", "out.onnx"], "out.onnx must end in .pt2"),
    (["fuse", "models.py:conv_bn", "-o", "out.pt2", "--json", "no/such/folder/out.json"], "no/such/folder"),
    (["fuse", "models.py:conv_bn", "-o", "out.pt2", "--json", "./out.pt2"], "is given for two outputs"),
    (["prove", "models.py:conv_bn", "missing.pt2"], "missing.pt2 does not exist"),
    (["prove", "inputless.pt2", "models.py:conv_bn"], "inputless.pt2 carries no example inputs"),
    (["prove", "models.py:conv_bn", "models.py:other_shape"], "models.py:other_shape does not run on the inputs of"),
    (["prove", "models.py:wrong_shape", "models.py:other_shape"], "models.py:wrong_shape does not run on its inputs"),
    (["prove", "models.py:small", "whole.pt2"], "whole.pt2 does not run on the inputs of models.py:small"),
    (["prove", "models.py:conv_bn", "models.py:conv_bn", "--json", "folder.pt2"], "folder.pt2 can't be written"),
    (["compare", "models.py:conv_bn", "--against", "missing.onnx"], "missing.onnx does not exist"),
    (["compare", "models.py:conv_bn", "--against", "tvm"], "cannot compare with 'tvm'"),
    (["compare", "models.py:conv_bn", "--against", "truncated.pt2"], "truncated.pt2 is truncated"),
    (["compare", "models.py:unrecordable", "--against", "eager"], "Arrays can't be exported"),
    (["compare", "models.py:conv_bn", "--against", "eager", "--output", "7"], "no output '7'; it has outputs 0 to 0"),
    (["compare", "models.py:conv_bn", "--against", "eager", "--mask", "words"], "no input 'words' for a mask"),
    (["compare", "models.py:small", "--against", "models.py"], "cannot compare with 'models.py'"),
    (["compare", "models.py:conv_bn", "--against", "whole.pt2"], "does not run on the inputs"),
    (["compare", "models.py:small", "--against", "eager", "--report", "no/such/folder/a.md"], "no/such/folder"),
    (["compare", "models.py:small", "--against", "eager", "--json", "a", "--report", "./a"], "given for two outputs"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input_is_one_sentence_and_leaves_nothing(foldproof: Foldproof, args: list[str], message: str) -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(2),))
    torch.export.save(program, "whole.pt2")
    whole = Path("whole.pt2").read_bytes()
    Path("truncated.pt2").write_bytes(whole[: len(whole) // 2])
    program._example_inputs = None  # type: ignore[assignment]
    torch.export.save(program, "inputless.pt2")
    Path("folder.pt2").mkdir()
    there = written()

    ran = foldproof(*args)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith("foldproof: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1, ran.err
    assert written() == there


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["fuse"],
        ["fuse", "models.py:conv_bn"],
        ["prove", "models.py:conv_bn"],
        ["fold"],
        ["fuse", "--no-such"],
        ["compare", "models.py:conv_bn"],
    ],
    ids=" ".join,
)
def test_wrong_usage(foldproof: Foldproof, args: list[str]) -> None:
    ran = foldproof(*args)
    assert ran.status == 2
    assert "Usage: foldproof" in ran.out + ran.err
    assert written() == set()


def test_a_bug_in_foldproof_is_no_refutation(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:
    import foldproof as library

    def broken(*args: object, **kwargs: object) -> object:
        raise AssertionError("impossible")

    monkeypatch.setattr(library, "prove", broken)
    ran = foldproof("prove", "models.py:relu", "models.py:relu")
    assert ran.status == 70
    assert "AssertionError: impossible" in ran.err
    assert "this is a bug in foldproof" in ran.err


class TestOptionsOfAllCommands:
    @pytest.mark.parametrize("option", ["--version", "-V"])
    def test_version(self, foldproof: Foldproof, option: str) -> None:
        ran = foldproof(option)
        assert ran.status == 0 and ran.out == f"foldproof {__version__}\n"

    def test_short_help(self, foldproof: Foldproof) -> None:
        assert "--against" in foldproof("compare", "-h").out

    def test_json_on_stdout_leaves_the_summary_to_stderr(self, foldproof: Foldproof) -> None:
        ran = foldproof("explain", "models.py:residual", "--json", "-")
        assert ran.status == 0 and json.loads(ran.out)["command"] == "explain"
        assert "1 operator not folded" in ran.err and not written()
        ran = foldproof("prove", "models.py:residual", "models.py:residual", "--json", "-", "--seed", "3")
        assert json.loads(ran.out)["kind"] == "PROVED" and "PROVED" in ran.err
        assert json.loads(foldproof("doctor", "--json", "-").out)["versions"]["torch"]

    def test_threads(self, foldproof: Foldproof) -> None:
        before = torch.get_num_threads()
        try:
            assert foldproof("--threads", "1", "explain", "models.py:residual").status == 0
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)

    def test_the_stack_of_an_error_is_shown_on_request(self, foldproof: Foldproof) -> None:
        Path("failing.py").write_text("def make():\n    raise ValueError('no weights here')\n")
        quiet = foldproof("explain", "failing.py:make")
        assert quiet.status == 2 and "no weights here" in quiet.err and "Traceback" not in quiet.err
        loud = foldproof("--traceback", "explain", "failing.py:make")
        assert loud.status == 2 and "Traceback" in loud.err and "in make" in loud.err
