"""Assertions for tests of passes, and of programs that run outside PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foldproof.recording import record
from foldproof.verdict import Kind, Verdict

if TYPE_CHECKING:
    from foldproof.comparison import CompareResult


def assert_equivalent(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    at_these_parameters: bool = False,
) -> Verdict:
    """Assert that two programs are the same function up to rounding, and return the verdict (see `foldproof.prove`).

    PROVED, PROVED_WITHIN and ROUNDING pass; check ``.kind`` of the verdict for a stricter test. ROUNDING fails if the
    programs differ at other parameters, for example where a fresh BatchNorm was removed, unless ``at_these_parameters``
    says that only the present ones matter.

    Raises:
        AssertionError: the verdict is REFUTED or UNDECIDED, or holds at these parameters only; the message explains it
            in full.
        FoldproofError: ``before`` or ``after`` is not a program, or the inputs do not fit.
    """
    from foldproof.proving import prove

    verdict = record("assert_equivalent", prove(before, after, inputs, kwargs))
    if not (verdict.ok or (at_these_parameters and not verdict.kind.exit_code)):
        raise AssertionError(str(verdict))
    return verdict


def assert_close_enough(
    reference: Any, candidate: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> CompareResult:
    """Assert that the numbers of two programs differ by no more than rounding explains, and return the comparison.

    There is no tolerance to choose: `foldproof.compare`, which takes the same arguments, measures how far rounding may
    move these outputs.

    Raises:
        AssertionError: the verdict is REFUTED or UNDECIDED; the message explains it in full.
        FoldproofError: ``reference`` can't be exported, a program does not run, or a file can't be loaded.
    """
    from foldproof.comparison import compare

    result = compare(reference, candidate, inputs, kwargs, locate=False)
    record("assert_close_enough", result.verdict)
    if result.verdict.kind in (Kind.REFUTED, Kind.UNDECIDED):
        raise AssertionError(str(compare(reference, candidate, inputs, kwargs)))
    return result
