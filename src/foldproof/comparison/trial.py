"""One input: the values of both sides in parts that are judged apart, and what differs beside values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foldproof.comparison.calls import AFTER, ENDS, Call, name_values, output_names
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import Judged, Outputs, Perturb, identical

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Values that are judged together, and the judgement; None where they are bit-identical.

    The outputs of a call are one part, and each value that it writes is one: a large buffer must not dilute the score
    of small outputs.
    """

    values: Outputs
    judged: Judged | None = None

    @property
    def is_wrong(self) -> bool:
        """True if rounding does not explain a difference."""
        return self.judged is not None and bool(self.judged.wrong)

    @property
    def badness(self) -> tuple[bool, float]:
        """A key to find the worst part by."""
        return self.is_wrong, -1.0 if self.judged is None else self.judged.ratio

    def reading(self, perturb: Callable[[int, float], Named]) -> Perturb:
        """This part's values in perturbed runs."""

        def read(seed: int, amplitude: float) -> list[Tensor]:
            named = perturb(seed, amplitude)
            return [named[name] for name in self.values.names]

        return read


@dataclass(frozen=True)
class Trial:
    """One input, with the parts that were compared, of which the first has the outputs of the first call.

    ``float64`` and ``perturb`` give all values by name. ``problems`` tell what differs beside values, ``unseen`` what
    differs without a float64 result, and ``remarks`` what differs and makes neither side wrong.
    """

    given: Inputs
    parts: Sequence[Part]
    float64: Named
    perturb: Callable[[int, float], Named]
    problems: Sequence[str]
    unseen: str | None
    remarks: Sequence[str] = ()

    @property
    def outputs(self) -> Part:
        """The outputs of the first call."""
        return self.parts[0]


def find_mismatch(reference: Sequence[Call], candidate: Sequence[Call]) -> str | None:
    """A sentence on why values can't be compared element by element; None if they can."""
    for k, (a, b) in enumerate(zip(reference, candidate)):
        if len(a.outputs) != len(b.outputs):
            return f"the reference has {len(a.outputs)} outputs{ENDS[k]}, the candidate {len(b.outputs)}"
    ours, theirs = name_values(reference), name_values(candidate)
    for name in _compared(reference, candidate):
        x, y = ours[name].shape, theirs[name].shape
        if x != y:
            return f"{name} has shape {tuple(x)} from the reference, {tuple(y)} from the candidate"
    return None


def pair_up(first: Sequence[Call], second: Sequence[Call], float64: Named) -> tuple[list[Part], str | None]:
    """Both sides' values beside the float64 results, and a sentence on one that differs and has no float64 result."""
    ours, theirs = name_values(first), name_values(second)
    parts: list[Part] = []
    unseen = None

    def add(names: Sequence[str], subject: str) -> None:
        reference, candidate, exact = ([side[name] for name in names] for side in (ours, theirs, float64))
        parts.append(Part(Outputs(reference, candidate, exact, names, subject)))

    add(output_names(len(first[0].outputs)), "the outputs")
    for name in _compared(first, second):
        if name.startswith("output "):
            continue
        if name in float64 and float64[name].shape == ours[name].shape:
            add([name], name)
        elif not identical([ours[name]], [theirs[name]]):
            unseen = f"{name} differs, and the exported graph does not show how far rounding moves it"
    for k, call in enumerate(first[1:], 1):
        add(output_names(len(call.outputs), k), f"the outputs{ENDS[k]}")
    return parts, unseen


def tell_apart(reference: Sequence[Call], candidate: Sequence[Call], precision: torch.dtype | None) -> list[str]:
    """Sentences on other dtypes and shared memory."""
    ours, theirs = name_values(reference), name_values(candidate)
    told = []
    for name in _compared(reference, candidate):
        a, b = ours[name].dtype, theirs[name].dtype
        if a != b and not (precision in (a, b) and a.is_floating_point and b.is_floating_point):
            told.append(f"{name} is {a} from the reference and {b} from the candidate".replace("torch.", ""))
    for k, (one, other) in enumerate(zip(reference, candidate)):
        if one.shared is None or other.shared is None:
            continue
        for which, pairs in (("reference", one.shared - other.shared), ("candidate", other.shared - one.shared)):
            for a_name, b_name in sorted(pairs):
                which_memory = "with itself (elements are one)" if a_name == b_name else f"with {b_name}"
                told.append(f"{a_name} shares memory {which_memory} in the {which} only{ENDS[k]}")
    return told


def tell_other_draws(reference: Sequence[Call], candidate: Sequence[Call]) -> str | None:
    """A sentence if both sides, which started from one state of the generators, end in other ones.

    Equal outputs then say little: a draw may show in few of them, as that of an element that is rarely dropped.
    """
    if all(a.generators == b.generators for a, b in zip(reference, candidate)):
        return None
    return (
        "the candidate leaves the generator of random numbers in another state than the reference: it draws more, or"
        " less, whether or not that shows at the inputs tried"
    )


def tell_strides(reference: Sequence[Call], candidate: Sequence[Call]) -> list[str]:
    """Sentences on outputs with other strides.

    They are no wrong answer: values are equal, PyTorch promises no strides of an operator's result, and its compilers
    may change them. Code that asks for them (a later ``view``) may notice.
    """
    told = []
    for k, (one, other) in enumerate(zip(reference, candidate)):
        if one.layouts is None or other.layouts is None:
            continue
        for name, x, y in zip(output_names(len(one.outputs), k), one.layouts, other.layouts):
            if len(x) == len(y) and x != y:
                told.append(f"{name} has other strides: {x} from the reference, {y} from the candidate")
    return told


def _compared(reference: Sequence[Call], candidate: Sequence[Call]) -> Iterable[str]:
    """Names in words of values that both sides have: outputs, and whatever either side writes."""
    names: dict[str, None] = {}
    for k, (a, b) in enumerate(zip(reference, candidate)):
        names |= dict.fromkeys(output_names(min(len(a.outputs), len(b.outputs)), k))
        both = [name for side in (a.inputs, a.state) for name in side if name in b.inputs or name in b.state]
        names |= dict.fromkeys(name + AFTER[k] for name in both if name in a.written or name in b.written)
    return names
