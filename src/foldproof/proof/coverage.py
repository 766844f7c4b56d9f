"""Coverage of decisions: the outcomes that two programs took over all inputs that they were run on.

A proof that follows choices holds for the visited branches, and agreeing floats are no evidence for a branch that was
never taken. So runs on many inputs are watched for decisions by values of the inputs: comparisons, roundings to
integers, places of maxima and sorts, and piecewise functions. A decision is covered if each of its elements took each
of its outcomes. The claim names the decisions without coverage. Decisions by parameters alone are watched as well, for
claims about all parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.log import log_caught
from foldproof.operators import bind_arguments
from foldproof.rounding.constant_noise import depends_on_data, depends_on_parameters, remember
from foldproof.thresholds import MAX_COVERED_INDICES
from foldproof.torch_internals import DispatchMode, tree_iter, tree_leaves

Pieces = Callable[[Mapping[str, Any]], list[Tensor]]
"""A function from an operator's arguments by name to one boolean tensor for each boundary of two pieces."""


def _at_zero(given: Mapping[str, Any]) -> list[Tensor]:
    return [given["self"] > 0]


def _outside(low: str, high: str) -> Pieces:
    """Compare with the lower and upper limits that are among the arguments."""

    def sides(given: Mapping[str, Any]) -> list[Tensor]:
        x, least, most = given["self"], given.get(low), given.get(high)
        return [*([] if least is None else [x < least]), *([] if most is None else [x > most])]

    return sides


_PIECES: dict[str, Pieces] = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "celu", "selu", "prelu", "_prelu_kernel", "abs", "sign"), _at_zero),
    **dict.fromkeys(("leaky_relu_backward", "_prelu_kernel_backward"), _at_zero),
    "elu_backward": lambda given: [given["self_or_result"] > 0],
    **dict.fromkeys(
        ("hardswish", "hardsigmoid", "hardswish_backward", "hardsigmoid_backward"),
        lambda given: [given["self"] < -3, given["self"] > 3],
    ),
    **dict.fromkeys(
        ("hardshrink", "softshrink", "hardshrink_backward", "softshrink_backward"),
        lambda given: [given["self"] < -given["lambd"], given["self"] > given["lambd"]],
    ),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), lambda given: [given["self"] > given["other"]]),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _outside("min", "max")),
    **dict.fromkeys(("hardtanh", "hardtanh_backward"), _outside("min_val", "max_val")),
    "relu6": lambda given: [given["self"] < 0, given["self"] > 6],
    **dict.fromkeys(("threshold", "threshold_backward"), lambda given: [given["self"] > given["threshold"]]),
    **dict.fromkeys(
        ("softplus", "softplus_backward"), lambda given: [given["self"] * given["beta"] > given["threshold"]]
    ),
    **dict.fromkeys(
        ("smooth_l1_loss", "smooth_l1_loss_backward"),
        lambda given: [(given["self"] - given["target"]).abs() < given["beta"]],
    ),
    **dict.fromkeys(
        ("huber_loss", "huber_loss_backward"),
        lambda given: [(given["self"] - given["target"]).abs() < given["delta"]],
    ),
}


@dataclass
class _Seen:
    """The outcomes of one decision so far, element by element."""

    yes: Tensor
    no: Tensor

    @property
    def covered(self) -> bool:
        return bool((self.yes & self.no).all())


_Key = tuple[bool, str, int, str, tuple[int, ...]]
"""True for a decision by data; the program, the decision's number, its operator, and the shape."""


class Coverage:
    """The decisions of both programs, over all watched runs."""

    def __init__(self) -> None:
        self._seen: dict[_Key, _Seen] = {}
        self.unreadable: dict[str, None] = {}
        """Operators whose outcomes could not be determined; they count as uncovered."""
        self.changed = False
        """True if an outcome was new since this was last set to False."""

    @contextlib.contextmanager
    def watching(self, program: str) -> Iterator[None]:
        """Watch a run of the program of this name, in float64 and with its inputs marked as data."""
        with _Watch(self, program):
            yield

    @property
    def uncovered(self) -> tuple[str, ...]:
        """The operators deciding by data, of either program, that did not take every outcome."""
        return tuple(dict.fromkeys((*self._unseen(True), *self.unreadable)))

    @property
    def uncovered_by_parameters(self) -> tuple[str, ...]:
        """The operators deciding by parameters alone that did not take every outcome."""
        return tuple(dict.fromkeys(self._unseen(False)))

    def _unseen(self, data: bool) -> list[str]:
        return [key[3] for key, seen in self._seen.items() if key[0] is data and not seen.covered]

    def note(self, program: str, number: int, name: str, outcome: Tensor, data: bool = True) -> None:
        """Add the outcome, yes or no for each element, of the ``number``-th decision of a run."""
        key = (data, program, number, name, tuple(outcome.shape))
        old = self._seen.get(key)
        yes, no = outcome.clone(), ~outcome
        if old is not None:
            yes, no = yes | old.yes, no | old.no
        if old is None or not (torch.equal(yes, old.yes) and torch.equal(no, old.no)):
            self.changed = self.changed or data
            self._seen[key] = _Seen(yes, no)


class _Watch(DispatchMode):
    def __init__(self, coverage: Coverage, program: str) -> None:
        super().__init__()
        self._coverage, self._program, self._number = coverage, program, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operands = tree_leaves((args, kwargs))
        of_data, of_parameters = depends_on_data(*operands), depends_on_parameters(*operands)
        if of_data or of_parameters:
            self._note(func, args, kwargs, out, of_data)
            for x in tree_iter(out):
                if isinstance(x, Tensor):
                    remember(x, data=of_data or depends_on_data(x), parameter=of_parameters)
        return out

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any, data: bool) -> None:
        """Note decisions on floating-point numbers only: integers are held, so that their decisions stay the same."""
        if not any(isinstance(x, Tensor) and x.is_floating_point() for x in tree_leaves((args, kwargs))):
            return
        name = func.overloadpacket.__name__
        try:
            outcomes = _outcomes(func, args, kwargs, out)
        except Exception as error:  # a bug here is no failure of the program
            log_caught(error, f"reading the outcomes of {func}")
            self._coverage.unreadable.setdefault(name)
            return
        for outcome in outcomes:
            self._coverage.note(self._program, self._number, name, outcome, data)
            self._number += 1


def _outcomes(func: Any, args: Any, kwargs: Any, out: Any) -> list[Tensor]:
    """Return the outcomes of a call's decisions, each as yes or no for every element."""
    name = func.overloadpacket.__name__.removesuffix("_")
    given = bind_arguments(func, args, kwargs)
    if name in _PIECES:
        return _PIECES[name](given)
    results = [x for x in tree_iter(out) if isinstance(x, Tensor) and x.numel()]
    integers = [x for x in results if not x.is_floating_point() and not x.is_complex() and x.dtype is not torch.bool]
    x = args[0]
    if name in ("amax", "amin", "max", "min", "aminmax") and not integers:
        return _which(*_extreme(x, given.get("dim"), "min" not in name))
    if name in ("argmax", "argmin", "max", "min", "median", "kthvalue", "mode"):
        dim = given.get("dim")
        return _which(integers[0], x.numel() if dim is None else x.shape[dim] if x.ndim else 1)
    if name == "topk" and x.ndim:
        at, dim = integers[0], given["dim"]
        return [(at == i).any(dim) for i in range(x.shape[dim])] if x.shape[dim] <= MAX_COVERED_INDICES else _parity(at)
    found = [x for x in results if x.dtype is torch.bool]
    for places in integers:  # the places of an order or of windows, or a rounding to integers
        found += _parity(places)
        if name == "_to_copy":
            limits = torch.iinfo(places.dtype)
            found += [x > limits.max, x < limits.min] if limits.bits <= 16 else []
    return found


def _extreme(x: Tensor, dim: Any, largest: bool) -> tuple[Tensor, int]:
    """Return the place of the largest (smallest) element along ``dim``, and the number of places."""
    dims = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))
    flat = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims)) if x.ndim else x.reshape(1)
    return (flat.argmax(-1) if largest else flat.argmin(-1)), flat.shape[-1]


def _which(places: Tensor, size: int) -> list[Tensor]:
    """Return one outcome for each of ``size`` places; for very many, the parity, which shows a change of place."""
    if size > MAX_COVERED_INDICES:
        return _parity(places)
    return [places == i for i in range(size)] if size > 1 else []


def _parity(numbers: Tensor) -> list[Tensor]:
    return [(numbers & 1).bool()]
