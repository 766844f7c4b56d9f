"""Mistakes that no region shows, because it is cut out of its surroundings: the proof of the whole program refutes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from foldproof.fusion.examples import functional
from foldproof.fusion.motion import averaging, selection
from foldproof.rewriting import rewrite
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.editor import GraphEditor
from mutants import batching
from mutants.mutant import Mutant, around, exported, mutant, nothing, patch
from mutants.plans import no_reader_guard

_norm, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_linear, _reader, _conv = partial(nn.Linear, 3, 6), partial(nn.Linear, 6, 3), partial(nn.Conv2d, 3, 6, 3)
_vector = partial(torch.randn, 6)
_image = (2, 3, 7, 8)

input_changed = exported(functional(((4, 6),), lambda m, x: (y := m.n(x), x.add_(1), m.a(y))[2], n=_norm, a=_reader))
branch_changed = exported(
    functional(
        ((2, 6, 7),),
        lambda m, x: (y := x.relu(), v := y.view(2, 6, 7), a := m.a(v), y.mul_(2), a + m.b(v))[4],
        a=partial(nn.Conv1d, 6, 6, 3, padding=1),
        b=partial(nn.Conv1d, 6, 6, 1),
    )
)
shared_changed = exported(
    functional(
        ((4, 6),),
        lambda m, x: (y := x.relu(), v := y.view(4, 6), a := m.a(v).tanh(), y.mul_(2), a + m.b(v))[4],
        a=_reader,
        b=_reader,
    )
)
statistics_changed = exported(
    functional(
        ((4, 3),),
        lambda m, x: (v := m.n.running_mean.view(6), m.n.running_mean.add_(1), _normalise(m, m.a(x), v))[2],
        a=_linear,
        n=_norm,
    )
)
two_normalisations = exported(
    functional(
        (_image,), lambda m, x: m.n(m.a(x)) * m.o(m.a(x)), a=_conv, n=_norm2, o=partial(nn.BatchNorm2d, 6, eps=2)
    )
)
two_readers = exported(functional((_image,), lambda m, x: (m.n(y := m.a(x)), y + 1), a=_conv, n=_norm2))
_free = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
pooled = exported(
    functional(
        ((2, 3, 6, 6),),
        lambda m, x: m.n(nn.functional.avg_pool2d(m.a(x), 2, ceil_mode=True, divisor_override=4)),
        a=_conv,
        n=_norm2,
    ),
    dynamic_shapes=((_free,),),
)
laid_over = exported(
    functional(
        ((2, 6, 5),), lambda m, x: m.a((x * m.k.view(6, 1)).flatten(1)[:, :24]), k=_vector, a=partial(nn.Linear, 24, 3)
    ),
    dynamic_shapes=(({2: Dim("size", min=5, max=20)},),),
)


def _normalise(m: Any, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return nn.functional.batch_norm(x, mean, m.n.running_var, m.n.weight, m.n.bias)


def last_result(original: Any, nodes: Any, results: Any, **k: Any) -> Any:
    return original(nodes, list(results)[-1:], **k)


not_lasting = patch(Constants, "require_lasting", nothing)


def unwritten(original: Any, self: Constants, *a: Any) -> None:
    original(self, *a)
    self._written = {}
    self._stale = set()


MUTANTS: dict[str, Mutant] = {
    # in-place changes
    "an input is changed": mutant(input_changed, not_lasting),
    "the input of one of two convolutions is changed": mutant(branch_changed, not_lasting),
    "the input of one of two linears is changed": Mutant(
        shared_changed, (batching.always, not_lasting), ("batch_linears",)
    ),
    "statistics are changed": mutant(statistics_changed, around(Constants, "__init__", unwritten)),
    # the proof itself is broken
    "a region forgets what is read": mutant(two_readers, no_reader_guard, around(rewrite, "cut_region", last_result)),
    # constants
    "constants are mixed up": mutant(
        two_normalisations, patch(GraphEditor, "_free_name", lambda self, base: f"{base}_folded")
    ),
    # other sizes
    "weights that add up at one size": mutant(
        pooled, around(averaging.Averaging, "_check_weights", lambda original, *a: None)
    ),
    "channels that lie so at one size": mutant(
        laid_over, patch(selection, "require_static", lambda affine, *_: affine)
    ),
}
