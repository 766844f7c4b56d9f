"""For the tests of whoever writes passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foldproof.verdict import Kind, Verdict


def assert_equivalent(
    before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> Verdict:
    """Assert that two programs are the same function, up to rounding; returns the verdict (see `foldproof.prove`).

    PROVED, PROVED_WITHIN and ROUNDING pass; a caller to whom rounding is not enough can look at ``.kind``.

    Raises:
        AssertionError: the verdict is REFUTED or UNDECIDED; its text is the whole story.
        FoldproofError: ``before`` or ``after`` is no program, or the inputs do not fit.
    """
    from foldproof.proof import prove

    verdict = prove(before, after, inputs, kwargs)
    if verdict.kind in (Kind.REFUTED, Kind.UNDECIDED):
        raise AssertionError(str(verdict))
    return verdict
