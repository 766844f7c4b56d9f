"""Random programs: the same for a number, running, and made of every idiom."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from foldproof.hunting.generator import check, generate
from foldproof.hunting.idioms import IDIOMS
from foldproof.hunting.program import Program, load
from foldproof.hunting.reduce import reduce_program
from foldproof.hunting.scene import Scene, Unfit
from foldproof.program.loading import load_spec

NUMBERS = range(30)


@pytest.mark.parametrize("training", [False, True])
def test_a_number_stands_for_a_program_that_runs(training: bool) -> None:
    texts = [generate(number, training).write(training) for number in NUMBERS]
    assert texts == [generate(number, training).write(training) for number in NUMBERS]
    assert len(set(texts)) == len(texts)
    for text in texts:
        model, inputs = load(text)
        assert model.training is training
        with torch.set_grad_enabled(training):
            outputs = model(*inputs)
        assert outputs and all(isinstance(x, Tensor) for x in outputs)


def test_a_text_is_a_spec(tmp_path) -> None:
    file = tmp_path / "program.py"
    file.write_text(generate(3).write())
    loaded = load_spec(f"{file}:make")
    loaded.program(*loaded.require_inputs())


def test_random_numbers_of_the_caller_stay() -> None:
    torch.manual_seed(5)
    generate(1)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize("idiom", dict.fromkeys(IDIOMS))
def test_an_idiom_finds_a_place(idiom: str) -> None:
    rng = random.Random(0)
    with torch.no_grad():
        assert any(finds_place(idiom, rng) for _ in range(60))


def finds_place(idiom: str, rng: random.Random) -> bool:
    scene = Scene(rng)
    try:
        scene.add(idiom)
    except Unfit:
        return False
    check(scene.finish(0))
    return True


def test_what_has_no_place_leaves_nothing() -> None:
    scene = Scene(random.Random(0))
    before = list(scene.lines), list(scene.state), list(scene.inputs), dict(scene.values)
    with pytest.raises(Unfit):
        scene.add("{a} = {x} * {vector}\n{b} = {i}.no_such_method()")
    assert (scene.lines, scene.state, scene.inputs, scene.values) == before


def test_a_program_is_reduced_to_what_shows() -> None:
    def shows(program: Program) -> bool:
        check(program)
        return "flip" in program.write()

    long = [p for p in map(generate, range(80)) if shows(p) and len(p.lines) > 4]
    for program in long[:4]:
        small = reduce_program(program, shows)
        assert shows(small) and len(small.returns) == 1
        assert len(small.lines) < len(program.lines) and len(small.write()) < len(program.write())
    assert long
