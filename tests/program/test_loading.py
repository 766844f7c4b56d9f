"""Every form of SPEC, and every way in which one can be wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from foldproof import prove
from foldproof.errors import FoldproofError, brief
from foldproof.program.loading import check_runs, load_spec


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Works in an empty folder; loading leaves sys.path as it was."""
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    assert sys.path == before


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


MODEL = """
import torch
from torch import nn
x = torch.ones(2, 3)
def two(): return nn.Linear(3, 4), (x,)
def three(): return nn.Linear(3, 4), (), {"input": x}
def four(): return nn.Linear(3, 4), [x], None, {"input": {0: "batch"}}
"""


def save(name: str, program: torch.export.ExportedProgram) -> None:
    torch.export.save(program, name)


def export() -> torch.export.ExportedProgram:
    return torch.export.export(nn.Linear(3, 4), (torch.ones(2, 3),))


class TestPython:
    def test_two_three_and_four_values(self) -> None:
        write("model.py", MODEL)
        loaded = load_spec("model.py:two")
        assert isinstance(loaded.program, nn.Linear)
        assert loaded.require_inputs()[0].shape == (2, 3)
        assert (loaded.kwargs, loaded.dynamic_shapes) == ({}, None)
        assert load_spec("model.py:three").kwargs["input"].shape == (2, 3)
        loaded = load_spec("model.py:four")
        assert isinstance(loaded.inputs, tuple)
        assert (loaded.kwargs, loaded.dynamic_shapes) == ({}, {"input": {0: "batch"}})

    def test_module_beside_the_user(self) -> None:
        Path("beside").mkdir()
        write("beside/model.py", MODEL)
        assert isinstance(load_spec("beside.model:two").program, nn.Linear)

    def test_file_imports_its_neighbour(self) -> None:
        Path("deep").mkdir()
        write("deep/layers_of_it.py", MODEL)
        write("deep/model.py", "from layers_of_it import two")
        assert isinstance(load_spec("deep/model.py:two").program, nn.Linear)

    def test_file_with_the_name_of_a_module_hides_nothing(self) -> None:
        import json

        write("json.py", MODEL)
        load_spec("json.py:two")
        assert sys.modules["json"] is json

    def test_files_of_one_name_stay_apart(self) -> None:
        for folder, width in (("a", 5), ("b", 6)):
            Path(folder).mkdir()
            write(f"{folder}/model.py", MODEL.replace("4", str(width)))
        widths = [load_spec(f"{folder}/model.py:two").program.out_features for folder in "ab"]
        assert widths == [5, 6]

    def test_a_file_runs_once_so_that_two_callables_share_a_model(self) -> None:
        write(
            "model.py", MODEL + "shared = nn.Linear(3, 4)\ndef a(): return shared, (x,)\ndef b(): return shared, (x,)"
        )
        assert load_spec("model.py:a").program is load_spec("./model.py:b").program

    def test_dataclass_under_postponed_annotations(self) -> None:
        future = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        write("model.py", future + MODEL + "@dataclass\nclass C:\n    n: int = 4\n")
        load_spec("model.py:two")

    def test_an_import_that_failed_is_tried_again(self) -> None:
        write("model.py", "1 / 0")
        with pytest.raises(FoldproofError):
            load_spec("model.py:two")
        write("model.py", MODEL)
        load_spec("model.py:two")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1 / 0", r"importing model.py raised ZeroDivisionError: division by zero at .*model\.py:1$"),
            ("def two(:", r"importing model.py raised SyntaxError: .* at .*model\.py:1$"),
            ("import no_such_module_anywhere", "importing model.py raised ModuleNotFoundError: No module named"),
            ("import sys\nsys.exit(3)", r"importing model.py raised SystemExit: 3 at .*model\.py:2$"),
            ("def one(): pass", "model.py has no callable named 'two'"),
            ("two = 2", "model.py has no callable named 'two'"),
            ("def two(): raise KeyError('x')", r"calling two\(\) raised KeyError: 'x' at .*model\.py:1$"),
            ("def two(a): pass", r"calling two\(\) raised TypeError: two\(\) missing 1 required"),
            ("def two(): pass", r"must return \(model, args\).*, not NoneType"),
            ("def two(): return (1,)", "not a tuple of 1"),
            ("def two(): return 1, (2,)", "model is int, not an nn.Module or ExportedProgram"),
            (
                "import torch\ndef two(): return torch.nn.ReLU(), torch.ones(1)",
                r"args is Tensor, not a tuple: .* \(x,\)",
            ),
            ("import torch\ndef two(): return torch.nn.ReLU(), (), (1,)", "kwargs is tuple, not a dict"),
        ],
    )
    def test_wrong(self, text: str, message: str) -> None:
        write("model.py", text)
        with pytest.raises(FoldproofError, match=message):
            load_spec("model.py:two")

    def test_error_deep_in_torch_names_the_users_line(self) -> None:
        write("model.py", "import torch\ndef two():\n    return torch.ones(2) @ torch.ones(3), ()")
        with pytest.raises(FoldproofError, match=r"model\.py:3$"):
            load_spec("model.py:two")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("nonsense", "is not a SPEC: give a .pt2 file, path/file.py:callable"),
            ("model.py", "is not a SPEC"),
            (":two", "is not a SPEC"),
            ("model.py:", "is not a SPEC"),
            ("missing.py:two", "missing.py does not exist"),
            ("no_such_module_anywhere:two", "ModuleNotFoundError"),
        ],
    )
    def test_wrong_spec(self, spec: str, message: str) -> None:
        with pytest.raises(FoldproofError, match=message):
            load_spec(spec)


class TestPt2:
    def test_carries_its_inputs(self) -> None:
        save("model.pt2", torch.export.export(nn.Linear(3, 4), (), {"input": torch.ones(2, 3)}))
        loaded = load_spec("model.pt2")
        assert loaded.require_inputs() == ()
        assert torch.equal(loaded.kwargs["input"], torch.ones(2, 3))

    def test_without_inputs(self) -> None:
        program = export()
        program._example_inputs = None  # type: ignore[assignment]
        save("model.pt2", program)
        loaded = load_spec("model.pt2")
        with pytest.raises(FoldproofError, match="model.pt2 carries no example inputs; export it again"):
            loaded.require_inputs()

    def test_missing(self) -> None:
        with pytest.raises(FoldproofError, match="^missing.pt2 does not exist$"):
            load_spec("missing.pt2")

    def test_folder(self) -> None:
        Path("folder.pt2").mkdir()
        with pytest.raises(FoldproofError, match="^folder.pt2 is not a file$"):
            load_spec("folder.pt2")

    @pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
    def test_truncated(self, part: float, capfd: pytest.CaptureFixture[str]) -> None:
        save("model.pt2", export())
        whole = Path("model.pt2").read_bytes()
        Path("model.pt2").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(
            FoldproofError, match="model.pt2 is (truncated|damaged),? or was not written by torch.export.save"
        ):
            load_spec("model.pt2")
        assert capfd.readouterr() == ("", "")

    def test_damaged_inside(self, capfd: pytest.CaptureFixture[str]) -> None:
        save("model.pt2", export())
        whole = bytearray(Path("model.pt2").read_bytes())
        place = whole.index(b"graph_module")
        whole[place : place + 40] = b"\xff" * 40
        Path("model.pt2").write_bytes(whole)
        with pytest.raises(FoldproofError, match="model.pt2 is damaged"):
            load_spec("model.pt2")
        assert capfd.readouterr() == ("", "")

    def test_other_archive(self, capfd: pytest.CaptureFixture[str]) -> None:
        import zipfile

        with zipfile.ZipFile("model.pt2", "w") as archive:
            archive.writestr("some/thing.txt", "else")
        with pytest.raises(FoldproofError, match="model.pt2 is damaged, or was not written by torch.export.save"):
            load_spec("model.pt2")
        assert capfd.readouterr() == ("", "")


class TestCheckRuns:
    def test_changes_neither_model_nor_inputs(self) -> None:
        write(
            "model.py",
            "import torch\nfrom torch import nn\n"
            "class M(nn.Module):\n"
            "    def __init__(self):\n        super().__init__()\n        self.bn = nn.BatchNorm1d(3)\n"
            "    def forward(self, x):\n        return self.bn(x.add_(1))\n"
            "def make(): return M(), (torch.randn(4, 3),)",
        )
        loaded = load_spec("model.py:make")
        (x,) = loaded.require_inputs()
        before = {name: tensor.clone() for name, tensor in loaded.program.state_dict().items()} | {"x": x.clone()}
        check_runs(loaded, loaded)
        for name, tensor in (loaded.program.state_dict() | {"x": x}).items():
            assert torch.equal(tensor, before[name]), name

    def test_exported_program_on_sizes_it_was_not_exported_for(self) -> None:
        save("model.pt2", export())
        write("model.py", MODEL.replace("torch.ones(2, 3)", "torch.ones(5, 3)"))
        loaded, other = load_spec("model.pt2"), load_spec("model.py:two")
        check_runs(loaded, loaded)
        with pytest.raises(FoldproofError, match="model.pt2 does not run on the inputs of model.py:two"):
            check_runs(loaded, other)


def test_the_first_line_of_an_error_says_something() -> None:
    told = brief(RuntimeError("backend='inductor' raised:\nRuntimeError: sizes differ\n\nSet TORCH_LOGS"))
    assert told == "RuntimeError: backend='inductor' raised: RuntimeError: sizes differ"
    assert brief(ValueError("")) == "ValueError"


def test_lazy_parameters_are_told() -> None:
    write("model.py", MODEL + LAZY)
    loaded = load_spec("model.py:lazy")
    with pytest.raises(FoldproofError, match="weight has no shape yet, as its module is lazy"):
        check_runs(loaded, loaded)
    with pytest.raises(FoldproofError, match="weight has no shape yet, as its module is lazy"):
        prove(loaded.program, loaded.program, loaded.require_inputs())


LAZY = """

def lazy():
    return torch.nn.LazyLinear(3), (torch.ones(2, 3),)
"""
