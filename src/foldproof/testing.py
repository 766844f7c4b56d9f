"""For the tests of whoever writes passes, or runs programs in other ways than PyTorch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    """Assert that two programs are the same function, up to rounding; returns the verdict (see `foldproof.prove`).

    PROVED, PROVED_WITHIN and ROUNDING pass; a caller to whom rounding is not enough can look at ``.kind``. ROUNDING
    fails where the programs were seen to differ at other parameters, as when a fresh BatchNorm is left out, unless
    ``at_these_parameters`` says that only these matter.

    Raises:
        AssertionError: the verdict is REFUTED or UNDECIDED, or holds at these parameters only; its text is the whole
            story.
        FoldproofError: ``before`` or ``after`` is no program, or the inputs do not fit.
    """
    from foldproof.proof import prove

    verdict = prove(before, after, inputs, kwargs)
    if not (verdict.ok or (at_these_parameters and not verdict.kind.exit_code)):
        raise AssertionError(str(verdict))
    return verdict


def assert_close_enough(
    reference: Any, candidate: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> CompareResult:
    """Assert that a program's numbers differ by no more than rounding explains; returns the comparison.

    There is no tolerance to choose: how far rounding may move these outputs is measured (see `foldproof.compare`, which
    takes the same arguments).

    Raises:
        AssertionError: the verdict is REFUTED or UNDECIDED; its text is the whole story.
        FoldproofError: ``reference`` can't be exported, something does not run, or a file can't be loaded.
    """
    from foldproof.comparison import compare

    result = compare(reference, candidate, inputs, kwargs, locate=False)
    if result.verdict.kind in (Kind.REFUTED, Kind.UNDECIDED):
        raise AssertionError(str(compare(reference, candidate, inputs, kwargs)))
    return result
