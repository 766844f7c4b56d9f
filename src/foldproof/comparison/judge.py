"""Judge values of both sides at one input by the float64 result and the noise floor: rounding, or more than that?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foldproof.formatting import format_count
from foldproof.rounding.floor import Floor, Score
from foldproof.thresholds import (
    CLEAR_FACTOR,
    CLEARLY_ROUNDING,
    JUMP_AMPLITUDE,
    MAX_AGREEMENT,
    MAX_FLOAT64_SIGMAS,
    MAX_ROUNDING_RATIO,
    MAX_UNEVEN,
    MAX_UNLIKE,
    MIN_WRONG_RATIO,
    ROUNDINGS_OF_AGREEMENT,
    RUNS_AT_OTHER_INPUTS,
    RUNS_BEFORE_WRONG,
    TIMES_AN_OWN_ERROR,
)

Perturb = Callable[[int, float], Sequence[Tensor]]
"""(seed, amplitude) → outputs of a perturbed float64 run."""


@dataclass(frozen=True)
class Place:
    """An element that differs; ``output`` is the index of its value among those judged together."""

    output: int
    index: tuple[int, ...]
    reference: float
    candidate: float
    float64: float
    sigma: float


@dataclass
class Judged:
    """The judgement of some values at one input.

    ``candidate``, ``reference`` and ``difference`` score the distances candidate − float64, reference − float64 and
    candidate − reference. ``wrong`` says why this is no rounding, ``unsure`` why nothing can be said.
    """

    floor: Floor
    candidate: Score
    reference: Score
    difference: Score
    place: Place | None = None
    wrong: str | None = None
    unsure: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_doubted(self) -> bool:
        """True if rounding, as far as the floor shows it, does not explain the difference."""
        return self.wrong is not None or self.unsure is not None

    @property
    def ratio(self) -> float:
        """The candidate's score in multiples of the perturbed runs', from the float64 result or reference, if less."""
        return min(self.floor.ratio(self.candidate), self.floor.ratio(self.difference))


@dataclass(frozen=True)
class Outputs:
    """Some values at one input: reference, candidate, float64 result; of the same number and shapes.

    ``names`` has each in words: "output 0", "buffer cache after the call". ``subject`` is what all are together.
    """

    reference: Sequence[Tensor]
    candidate: Sequence[Tensor]
    float64: Sequence[Tensor]
    names: Sequence[str]
    subject: str = "the outputs"

    @property
    def floats(self) -> list[int]:
        """Indices of the values that are real or complex numbers."""
        return [i for i, t in enumerate(self.reference) if t.is_floating_point() or t.is_complex()]

    @property
    def traced(self) -> list[int]:
        """Indices of the values whose difference is traced to operators: the floats, or all where no float differs."""
        apart = any(not torch.equal(number(self.reference[i]), number(self.candidate[i])) for i in self.floats)
        return self.floats if apart else list(range(len(self.reference)))


def identical(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """True if two lists of values agree in dtype, shape and every bit of every number (nan equals nan)."""
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and (_equal(x, y) or bool(same(real(x), real(y)).all()))
        for x, y in zip(a, b)
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    """Return True if all numbers are equal, and none is nan; much faster than `same` on the state of a model."""
    plain = a.device == b.device and (a.dtype.itemsize > 1 or not a.is_floating_point()) and not a.is_quantized
    return plain and a.layout == b.layout == torch.strided and torch.equal(a, b)


def same(a: Tensor, b: Tensor) -> Tensor:
    """Element by element, nan equal to nan."""
    if a.is_floating_point() and a.element_size() == 1:  # float8 has no comparison
        a, b = a.float(), b.float()
    return (a == b) | (a.isnan() & b.isnan()) if a.is_floating_point() else a == b


def real(x: Tensor) -> Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def number(x: Tensor) -> Tensor:
    """In float64."""
    return real(x.detach()).to("cpu", torch.float64)


def distance(a: Sequence[Tensor], b: Sequence[Tensor], which: Sequence[int]) -> list[Tensor]:
    """a − b in float64, for the outputs ``which``; 0 where either is not finite."""
    out = []
    for i in which:
        d = number(a[i]) - number(b[i])
        out.append(torch.where(d.isfinite(), d, 0.0))
    return out


def rms(parts: Sequence[Tensor]) -> float:
    """Root mean square over all elements of all parts."""
    count = sum(p.numel() for p in parts)
    return (sum(float(p.square().sum()) for p in parts) / count) ** 0.5 if count else 0.0


def floor_of(outputs: Outputs, perturb: Perturb, runs: int, amplitude: float = 1.0, seed: int = 0) -> Floor:
    """The noise floor at one input from ``runs`` perturbed runs."""
    which = outputs.floats
    return Floor([distance(perturb(seed + k, amplitude), outputs.float64, which) for k in range(runs)])


def judge_alike(outputs: Outputs, known: Judged | None) -> Judged | None:
    """Judge one input by the floor that is ``known`` from another, without a perturbed run; None where it may not hold.

    It holds where the reference's own rounding, which is a sample of it, is as large in its sigmas at both inputs, and
    where it is even, so that no element of this input hides behind a large sigma of the other. It can explain a
    difference only: whatever it does not explain as easily as a perturbed run is judged by a floor of its own.
    """
    if known is None or known.is_doubted or known.notes or known.ratio > MAX_ROUNDING_RATIO:
        return None
    sizes = [real(outputs.float64[i]).shape for i in outputs.floats]
    if sizes != [sigma.shape for sigma in known.floor.sigmas] or not all(map(_is_even, known.floor.sigmas)):
        return None
    if _discrete(outputs) or unfinite(outputs):
        return None
    judged = _scored(outputs, known.floor)
    before, now = known.reference.rms, judged.reference.rms
    alike = before > 0 and before / MAX_UNLIKE <= now <= before * MAX_UNLIKE
    return judged if alike and judged.ratio <= 1 else None


def _is_even(sigma: Tensor) -> bool:
    """Return True if no element moves much more than a typical one."""
    moving = sigma[sigma > 0]
    return not moving.numel() or float(moving.max()) <= MAX_UNEVEN * float(moving.median())


def judge(outputs: Outputs, perturb: Perturb, runs: int, thoroughly: bool = True) -> Judged:
    """Judge one input by ``runs`` perturbed runs, or half as many where they are decisive; before anything is called
    wrong, by many more.

    Unless ``thoroughly``, for one input was called wrong already, a suspicion is left at that.
    """
    judged = _scored(outputs, floor_of(outputs, perturb, max(runs // 2, min(runs, RUNS_AT_OTHER_INPUTS))))
    if judged.ratio > CLEARLY_ROUNDING:
        judged = _scored(outputs, floor_of(outputs, perturb, runs))
    discrete, broken = _discrete(outputs), unfinite(outputs)
    if not thoroughly or (judged.ratio <= MAX_ROUNDING_RATIO and not discrete and not broken):
        return judged
    if runs < RUNS_BEFORE_WRONG and judged.ratio < CLEAR_FACTOR * MIN_WRONG_RATIO:
        judged = _scored(outputs, floor_of(outputs, perturb, RUNS_BEFORE_WRONG))
    # Where a rounded value decides between two ways, rounding makes jumps, which small noise may not have met.
    loud = (
        [list(perturb(1000 + k, 4.0 if k % 2 else 8.0)) for k in range(RUNS_BEFORE_WRONG)] if discrete or broken else []
    )
    _explain_integers(outputs, discrete, loud, judged)
    _explain_unfinite(outputs, broken, loud, judged)
    if judged.wrong is None and judged.ratio > MAX_ROUNDING_RATIO:
        _explain_jumps(outputs, perturb, judged)
    return judged


def tell_absurd(outputs: Outputs, floor: Floor) -> str | None:
    """Return a sentence if both sides differ in elements that rounding alone moves by as much as outputs are large.

    A row of scores that a mask empties wholly is such: its softmax is of rounding errors. Where both sides agree to a
    few roundings in spite of it, or to a few times what the reference itself rounds, that says what it says anywhere.
    An output that is 0 but for rounding in float64, as the gradient of a bias before a batch normalization, is one that
    rounding alone makes: it is right if it is as small as that.
    """
    for j, i in enumerate(outputs.floats):
        size = rms([number(outputs.float64[i]).nan_to_num(0.0, 0.0, 0.0)])
        epsilon = max(torch.finfo(side[i].dtype).eps for side in (outputs.reference, outputs.candidate))
        apart = distance(outputs.candidate, outputs.reference, [i])[0].abs()
        own = rms(distance(outputs.reference, outputs.float64, [i]))
        near = min(max(ROUNDINGS_OF_AGREEMENT * epsilon * size, TIMES_AN_OWN_ERROR * own), MAX_AGREEMENT * size)
        absurd = (floor.sigmas[j] > size / 2) & (size > MAX_FLOAT64_SIGMAS * floor.sigmas[j])
        if size and bool((absurd & (apart > near)).any()):
            return (
                f"rounding alone moves {int(absurd.sum())} of {absurd.numel()} elements of {outputs.names[i]} by as"
                " much as outputs are large (rows that a mask empties are such), so that agreement says nothing there;"
                " compare at inputs or parameters that matter"
            )
    return None


def _scored(outputs: Outputs, floor: Floor) -> Judged:
    which = outputs.floats
    c = floor.score(distance(outputs.candidate, outputs.float64, which))
    r = floor.score(distance(outputs.reference, outputs.float64, which))
    d = floor.score(distance(outputs.candidate, outputs.reference, which))
    return Judged(floor, c, r, d, _place(outputs, floor, c if floor.ratio(c) <= floor.ratio(d) else d))


def _place(outputs: Outputs, floor: Floor, found: Score) -> Place | None:
    which = outputs.floats
    if not which or not found.worst:
        return None
    return _at(outputs, which[found.output], found.index, float(floor.sigmas[found.output][found.index]))


def _at(outputs: Outputs, output: int, index: tuple[int, ...], sigma: float) -> Place:
    values = [float(number(side[output])[index]) for side in (outputs.reference, outputs.candidate, outputs.float64)]
    return Place(output, index, values[0], values[1], values[2], sigma)


def _explain_jumps(outputs: Outputs, perturb: Perturb, judged: Judged) -> None:
    """Accept elements that are too far away if louder noise makes them jump as far as that."""
    which, floor = outputs.floats, judged.floor
    near = judged.candidate if floor.ratio(judged.candidate) <= floor.ratio(judged.difference) else judged.difference
    far = outputs.float64 if near is judged.candidate else outputs.reference
    deviation = distance(outputs.candidate, far, which)
    reached = [torch.zeros_like(d) for d in deviation]
    left = deviation
    for k in range(RUNS_BEFORE_WRONG):
        moved = distance(perturb(2000 + k, JUMP_AMPLITUDE), outputs.float64, which)
        reached = [torch.maximum(a, m.abs()) for a, m in zip(reached, moved)]
        # Where noise that is so many times louder moves an element so many times further, that is no jump.
        jumps = [(e > 4 * JUMP_AMPLITUDE * s) & (e >= d.abs()) for e, s, d in zip(reached, floor.sigmas, deviation)]
        left = [torch.where(j, 0.0, d) for j, d in zip(jumps, deviation)]
        if k + 1 == RUNS_BEFORE_WRONG // 4 and not any(bool((j & (d != 0)).any()) for j, d in zip(jumps, deviation)):
            break  # nothing jumps here
    rest = floor.score(left)
    ratio = floor.ratio(rest)
    if ratio <= MAX_ROUNDING_RATIO:
        judged.notes.append(
            "some elements differ by a jump that rounding can cause: a value on the edge between two ways"
        )
        judged.candidate = rest if near is judged.candidate else judged.candidate
        judged.difference = rest if near is judged.difference else judged.difference
        return
    judged.place = _place(outputs, floor, rest) or judged.place
    if ratio < MIN_WRONG_RATIO:
        where = "" if outputs.subject == "the outputs" else f" of {outputs.subject}"
        judged.unsure = f"the difference{where} is more than rounding explains, but too small to call wrong"
    else:
        verb = "differ" if outputs.subject.startswith("the ") else "differs"
        judged.wrong = f"{outputs.subject} {verb} by more than rounding explains"


def _discrete(outputs: Outputs) -> list[int]:
    """Indices of integers or booleans that differ."""
    return [
        i
        for i, (a, b) in enumerate(zip(outputs.reference, outputs.candidate))
        if i not in outputs.floats and not torch.equal(a.to(torch.int64), b.to(torch.int64))
    ]


def _explain_integers(outputs: Outputs, which: Sequence[int], loud: Sequence[Sequence[Tensor]], judged: Judged) -> None:
    """A flipped tie is one that perturbed runs flip, too, and to the same value."""
    for i in which:
        a, b = outputs.reference[i].to(torch.int64), outputs.candidate[i].to(torch.int64)
        differs = a != b
        seen = torch.stack([o[i].to(torch.int64) for o in (outputs.float64, *loud)])
        explained = (seen == b).any(0)
        if outputs.reference[i].dtype not in (torch.int64, torch.bool):  # codes of a quantised number, not indices
            explained |= (b >= seen.amin(0)) & (b <= seen.amax(0))
        wrong = differs & ~explained
        if wrong.any():
            at = tuple(int(k) for k in wrong.nonzero()[0])
            judged.place = _at(outputs, i, at, 0.0)
            judged.wrong = (
                f"{outputs.names[i]} ({_dtype(outputs.reference[i])}) differs in {int(wrong.sum())} of {wrong.numel()}"
                " elements where no rounding leads to the candidate's value"
            )
        else:
            judged.notes.append(
                f"{outputs.names[i]} ({_dtype(outputs.reference[i])}) differs in {int(differs.sum())} of"
                f" {differs.numel()} elements, each a tie that rounding flips"
            )


def unfinite(outputs: Outputs) -> list[int]:
    """Indices of floats that are infinite or no number on one side only."""
    out = []
    for i in outputs.floats:
        a, b = number(outputs.reference[i]), number(outputs.candidate[i])
        if bool(((~a.isfinite() | ~b.isfinite()) & ~same(a, b)).any()):
            out.append(i)
    return out


def _explain_unfinite(outputs: Outputs, which: Sequence[int], loud: Sequence[Sequence[Tensor]], judged: Judged) -> None:
    for i in which:
        a, b, t = (number(side[i]) for side in (outputs.reference, outputs.candidate, outputs.float64))
        differs = (~a.isfinite() | ~b.isfinite()) & ~same(a, b)
        dtype = outputs.candidate[i].dtype
        largest = torch.finfo(dtype).max if dtype.is_floating_point else float("inf")
        runs = torch.stack([number(o[i]) for o in loud])
        explained = (
            same(b, t)
            | (b.isfinite() & t.isfinite())  # scored like any other element
            | (~b.isfinite() & (t.abs() > largest / 2))
            | ((runs.isnan() == b.isnan()) & (runs.isinf() == b.isinf())).any(0)
        )
        wrong = differs & ~explained
        if wrong.any():
            at = tuple(int(k) for k in wrong.nonzero()[0])
            judged.place = _at(outputs, i, at, 0.0)
            agreed = bool((same(a, t) | (a.isfinite() & t.isfinite()))[wrong].all())
            name = outputs.names[i]
            if agreed:
                judged.wrong = (
                    f"{name} is not finite in {format_count(int(wrong.sum()), 'element')} on one side only, and the"
                    " float64 result agrees with the reference"
                )
            else:
                judged.unsure = f"{name} is not finite in other places than the reference's"
        else:
            judged.notes.append(
                f"{outputs.names[i]} is not finite on one side only in {format_count(int(differs.sum()), 'element')}"
            )


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def flips(outputs: Outputs, floor: Floor) -> list[str]:
    """Sentences on outputs whose largest element along the last dimension is another: a tie, or another class."""
    told = []
    for j, i in enumerate(outputs.floats):
        a, b, t = (number(side[i]) for side in (outputs.reference, outputs.candidate, outputs.float64))
        if a.ndim < 2 or a.shape[-1] < 2 or outputs.reference[i].is_complex() or not a.numel():
            continue
        first, second = a.argmax(-1, keepdim=True), b.argmax(-1, keepdim=True)
        flipped = (first != second).squeeze(-1)
        if not flipped.any():
            continue
        gap = (t.gather(-1, first) - t.gather(-1, second)).abs().squeeze(-1)
        sigma = floor.sigmas[j]
        room = (sigma.gather(-1, first) + sigma.gather(-1, second)).squeeze(-1) * max(floor.null.worst, 3.0)
        ties = int((flipped & (gap <= room)).sum())
        kind = "a tie within rounding" if ties == int(flipped.sum()) else f"{ties} of them ties within rounding"
        told.append(
            f"the largest element of {outputs.names[i]} along its last dimension is another one in {int(flipped.sum())}"
            f" of {flipped.numel()} places: {kind}"
        )
    return told
