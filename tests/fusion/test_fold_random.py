"""Random small models through `foldproof.fuse`: no crash, nothing refuted, and the same outputs.

Run more of them with ``FOLDPROOF_EXAMPLES=2000``, which also draws others each time.
"""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import torch
from fusion_programs import FORMS, largest_error
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st
from random_models import Recipe, recipes
from torch import Tensor
from torch.export import Dim, ExportedProgram

import foldproof
from foldproof import Kind

EXAMPLES = int(os.environ.get("FOLDPROOF_EXAMPLES", "0"))


def outputs(program: Any, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Run the program, which may change its inputs, and return its outputs."""
    module = program.module() if isinstance(program, ExportedProgram) else program
    with torch.no_grad():
        return list(module(*copy.deepcopy(inputs)))


def exported(recipe: Recipe, dtype: torch.dtype, form: str, dynamic: bool) -> ExportedProgram:
    """Export the model, and discard the example if that is impossible."""
    shapes = (({0: Dim.AUTO},) * len(recipe.inputs),) if dynamic else None
    try:
        program = torch.export.export(recipe.model().to(dtype), recipe.example(4, dtype), dynamic_shapes=shapes)
        return FORMS[form](program)
    except Exception:
        reject()


def assert_equal(recipe: Recipe, before: ExportedProgram, after: ExportedProgram, inputs: tuple[Tensor, ...]) -> None:
    """In float64 there is hardly any rounding; in float32, both are about as far from the float64 result."""
    expected, found = outputs(before, inputs), outputs(after, inputs)
    if expected[0].dtype is torch.float64:
        assert largest_error(expected, found) < 1e-9
        return
    with torch.no_grad():
        truth = [t.float() for t in recipe.model().double()(*(x.double() for x in inputs))]
    assert largest_error(truth, found) < 1e-5 + 30 * largest_error(truth, expected)


@settings(
    max_examples=EXAMPLES or 30,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
@given(
    recipe=recipes(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    form=st.sampled_from(["training IR", "core ATen"]),
    dynamic=st.booleans(),
)
def test_random_models(recipe: Recipe, dtype: torch.dtype, form: str, dynamic: bool) -> None:
    program = exported(recipe, dtype, form, dynamic)
    inputs = recipe.example(4, dtype)
    untouched = copy.deepcopy(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of axes that do not meet
        result = foldproof.fuse(program, inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, untouched, strict=True))
    event(f"{len(result.rewrites)} rewrites")
    event(str(result.verdict.kind))
    if any("withdrawn" in declined.reason for declined in result.declined):
        event("withdrawn")
    assert result.verdict.kind is not Kind.REFUTED, result.verdict
    assert_equal(recipe, program, result.program, inputs)
    if dynamic:
        others = recipe.example(6, dtype)
        try:
            outputs(program, others)
        except Exception:
            return  # the size turned out to be fixed
        assert_equal(recipe, program, result.program, others)
