"""A program in the making: its lines so far, and the values that they compute."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldproof.hunting.program import NAMES, Program

SIZES = (1, 2, 3, 4, 5, 8, 16)
FLOATS = ("torch.float32",) * 8 + ("torch.float64", "torch.bfloat16", "torch.float16")
WHOLE = ("torch.int64", "torch.int64", "torch.int32", "torch.uint8", "torch.int8", "torch.int16")
NUMBERS = ("0", "1", "2", "-1", "0.5", "3", "-2.5", "1e-3", "0.1", "7", "1.0", "0.0")
WRITING = 0.15
"""Share of lines after which a value that the idiom reads is written."""
LARGEST = 4096
"""Largest number of elements of a value."""
HOLE = re.compile(r"\{(\w+)\}")


class Unfit(Exception):
    """An idiom that has no place here."""


class Holder(nn.Module):
    """The module of the program in the making."""


class Scene:
    """Values by name, each with the line that computes it."""

    def __init__(self, rng: random.Random, training: bool = False) -> None:
        self.rng, self.training = rng, training
        self.inputs: list[tuple[str, str]] = []
        self.state: list[str] = []
        self.lines: list[str] = []
        self.held = 0
        self.named = 0
        self._env: dict[str, Any] = {"torch": torch, "F": F, "nn": nn, "self": Holder()}
        self.values: dict[str, Tensor] = {}
        for _ in range(rng.randint(1, 2)):
            self.new_input()

    # Filling an idiom

    def add(self, idiom: str) -> None:
        """Fill the holes of an idiom, and run its lines.

        Raises:
            Unfit: no values fit, or a line can't be run on them.
        """
        kept = len(self.state), len(self.lines), len(self.inputs), dict(self.values), dict(self._env)
        try:
            filled: dict[str, str] = {}
            first = min((*HOLE.findall(idiom), "x"), key=_rank)
            filled[first] = self._choose(first, filled, "")
            for line in idiom.strip().splitlines():
                self.run(HOLE.sub(lambda hole: self._fill(hole[1], filled, line), line.strip()))
                if self.rng.random() < WRITING:
                    self.write_between(filled)
        except Unfit:
            del self.state[kept[0] :], self.lines[kept[1] :], self.inputs[kept[2] :]
            self.values, self._env = kept[3], kept[4]
            raise

    def run(self, line: str) -> None:
        """Run a line of ``forward``.

        Raises:
            Unfit: it raises an error, or computes numbers that are not finite, or too many.
        """
        self._execute(line)
        target = re.match(r"(v\d+(?:, v\d+)*) = ", line)
        for name in target[1].split(", ") if target else ():
            value = self._env[name]
            if not isinstance(value, Tensor):
                continue
            if value.numel() > LARGEST or value.is_complex() or not _is_tame(value):
                raise Unfit("too large, or not finite")
            self.values[name] = value
        self.lines.append(line)

    def write_between(self, filled: dict[str, str]) -> None:
        """Write to a value that the idiom reads."""
        near = [name for name in filled.values() if name in self.values and not _overlaps(self.values[name])]
        if near:
            name = self.rng.choice(near)
            value = self.values[name]
            writes = WRITES if value.is_floating_point() else WHOLE_WRITES
            if value.dtype is not torch.bool and not (self.training and name.startswith("x")):
                self.run(f"{name}{self.rng.choice(writes)}")

    def _fill(self, hole: str, filled: dict[str, str], line: str) -> str:
        if hole not in filled:
            filled[hole] = self._choose(hole, filled, line)
        return filled[hole]

    def _choose(self, hole: str, filled: dict[str, str], line: str) -> str:
        kind = hole.rstrip("0123456789")
        rng = self.rng
        if len(kind) == 1 and kind in "abcdefgh":
            self.named += 1
            return f"v{self.named}"
        first = next((self.values[n] for n in filled.values() if n in self.values), None)
        if kind == "x":
            rank = int(hole[1:] or 0)
            return self._pick(lambda v: v.is_floating_point() and (v.dim() == rank or (not rank and v.dim() > 0)), rank)
        if kind == "y":
            return self._pick(lambda v: v.is_floating_point() and _broadcasts(v, first), 0, like=first)
        if kind == "z":
            return self._pick(lambda v: v.is_floating_point(), 0)
        if kind == "any":
            return self._pick(lambda v: True, 0)
        if kind == "i":
            return self._pick(_is_whole, 0, WHOLE)
        if kind == "j":
            return self._pick(lambda v: _is_whole(v) and _broadcasts(v, first), 0, WHOLE, first)
        if kind in SIMPLE:
            return rng.choice(SIMPLE[kind])
        shown = self._shown(filled)
        rank = max(shown.dim(), 1)
        last = shown.shape[-1] if shown.dim() else 1
        if kind in ("dim", "other"):
            dim = rng.randrange(rank)
            return str(dim - rank if rng.random() < 0.5 else dim)
        if kind == "dims":
            dims = rng.sample(range(rank), rng.randint(1, rank))
            return str(tuple(d - rank if rng.random() < 0.3 else d for d in dims))
        if kind == "perm":
            return str(tuple(rng.sample(range(rank), rank)))
        if kind == "shape":
            return str(tuple(shown.shape))
        if kind == "flat":
            return rng.choice([str((-1,)), str((*shown.shape[:1], -1)), str((-1, last))])
        if kind == "size":
            return str(last)
        if kind == "mask":
            return self._hold(f"torch.rand({tuple(shown.shape)}) > 0.4", "buffer")
        if kind in ("index", "rows", "columns", "elements"):
            along = {"index": int(filled.get("dim", "0")), "rows": 0, "columns": -1}
            size = _size(shown, along[kind]) if kind in along else max(shown.numel(), 1)
            return self._hold(f"torch.randint({size}, ({rng.randint(1, 4)},))", "buffer")
        if kind == "unique":
            size = _size(shown, int(filled.get("dim", "0")))
            return self._hold(f"torch.randperm({size})[:{rng.randint(1, size)}]", "buffer")
        if kind == "places":
            size = _size(shown, int(filled.get("dim", "0")))
            return self._hold(f"torch.randint({size}, {tuple(shown.shape)})", "buffer")
        if kind == "vector":
            return self._hold(f"torch.rand({last}{_dtype(shown)}) + 0.5", "parameter")
        if kind == "weight":
            return self._hold(f"torch.randn({last}, {rng.choice(SIZES)}{_dtype(shown)})", "parameter")
        if kind == "square":
            return self._hold(f"torch.randn({last}, {last}{_dtype(shown)})", "parameter")
        if kind == "buffer":
            return self._hold(f"torch.rand({tuple(shown.shape)}{_dtype(shown)}) + 0.5", "buffer")
        if kind == "count":
            return self._hold(f"torch.ones(1{_dtype(shown)})", "buffer")
        if kind in LAYERS:
            called = re.search(rf"\{{{hole}\}}\(\{{(\w+)\}}\)", line)
            on = self.values.get(filled.get(called[1], "")) if called else None
            return self._layer(rng.choice(LAYERS[kind]), shown if on is None else on)
        raise AssertionError(f"the hole {hole} is unknown")

    def _shown(self, filled: dict[str, str]) -> Tensor:
        """The tensor that sizes and dimensions are of: the one that was chosen first."""
        return next(self.values[name] for name in filled.values() if name in self.values)

    def _pick(
        self,
        fits: Callable[[Tensor], bool],
        rank: int,
        dtypes: Sequence[str] = FLOATS,
        like: Tensor | None = None,
    ) -> str:
        names = [name for name, value in self.values.items() if fits(value)]
        if not names or self.rng.random() < 0.1:
            return self.new_input(rank, dtypes, like)
        # Later values are read more often, so that lines follow each other.
        return names[max(self.rng.randrange(len(names)) for _ in range(3))]

    # State and inputs

    def new_input(self, rank: int = 0, dtypes: Sequence[str] = FLOATS, like: Tensor | None = None) -> str:
        """Add an input, of the shape and dtype of ``like`` if it is given."""
        rng = self.rng
        shape = [rng.choice(SIZES) for _ in range(rank or rng.choice((1, 2, 2, 3, 3, 4)))]
        dtype = rng.choice(dtypes)
        if like is not None:
            shape = [1 if rng.random() < 0.2 else n for n in like.shape][rng.choice((0, 0, 0, 1)) :]
            dtype = str(like.dtype) if rng.random() < 0.85 else dtype
        while len(shape) > 1 and torch.Size(shape).numel() > LARGEST // 4:
            shape[shape.index(max(shape))] = 2
        code = _draw_tensor(rng, shape, dtype)
        name = f"x{len(self.inputs)}"
        self._env[name] = self.values[name] = eval(code, self._env)
        self.inputs.append((name, code))
        return name

    def _hold(self, code: str, kind: str) -> str:
        self.held += 1
        name = f"{'p' if kind == 'parameter' else 'b'}{self.held}"
        made = f"nn.Parameter({code})"
        self._init(f"self.{name} = {made}" if kind == "parameter" else f'self.register_buffer("{name}", {code})')
        return f"self.{name}"

    def _layer(self, code: str, shown: Tensor) -> str:
        """Add a module; its code may name the channels and the last size of the tensor that it is called on."""
        self.held += 1
        name = f"m{self.held}"
        channels = shown.shape[1] if shown.dim() > 1 else 1
        out = self.rng.choice((1, 2, 4, channels))
        groups = self.rng.choice([g for g in (1, 2, 4) if channels % g == 0])
        made = code.format(c=channels, n=shown.shape[-1] if shown.dim() else 1, o=out * groups, g=groups)
        cast = "" if shown.dtype is torch.float32 else f".to({shown.dtype})"
        self._init(f"self.{name} = {made}{cast}")
        if "BatchNorm" in made:
            self._init(f"nn.init.uniform_(self.{name}.running_mean), nn.init.uniform_(self.{name}.running_var, 0.5, 2)")
        if not self.training:
            self._env["self"].eval()
        return f"self.{name}"

    def _init(self, line: str) -> None:
        self._execute(line)
        self.state.append(line)

    def _execute(self, line: str) -> None:
        try:
            exec(line, self._env)
        except Exception as error:  # of any kind, as a line may be any that an idiom allows
            raise Unfit(f"{line}: {error}") from None

    # The whole

    def finish(self, seed: int) -> Program:
        """Return the program; its outputs are the last value, and some of those before it."""
        made = [name for name in self.values if name.startswith("v")]
        if not made:
            self.run("v0 = x0 + 1")
            made = ["v0"]
        others = [name for name in made[:-1] if self.rng.random() < 0.35]
        read = set(NAMES.findall("\n".join([*self.lines, *others])))
        inputs = tuple(one for one in self.inputs if one[0] in read)
        return Program(
            inputs or tuple(self.inputs[:1]), tuple(self.state), tuple(self.lines), (*others, made[-1]), seed
        )


SIMPLE = {
    "keep": ("True", "False"),
    "bool": ("True", "False"),
    "n": NUMBERS,
    "kz": ("0", "1", "2"),
    "rate": ("0.0", "0.1", "0.5"),
    "pos": ("0.5", "1", "2", "3.5", "1e-3"),
    "k": ("1", "2", "3"),
    "whole": ("1", "2", "3", "-2", "5"),
    "dtype": ("torch.float32", "torch.float64", "torch.float16", "torch.bfloat16", "torch.int64", "torch.int32"),
    "float": ("torch.float32", "torch.float64", "torch.bfloat16"),
    "int": ("torch.int64", "torch.int32", "torch.int16", "torch.int8", "torch.uint8"),
    "signed": ("torch.int64", "torch.int32", "torch.int16"),
}
"""Holes that take any of some values."""

LAYERS = {
    "linear": ("nn.Linear({n}, {n})", "nn.Linear({n}, 4)", "nn.Linear({n}, 4, bias=False)", "nn.Linear({n}, 16)"),
    "conv": (
        "nn.Conv2d({c}, {o}, 1, groups={g})",
        "nn.Conv2d({c}, {o}, 3, padding=1, groups={g})",
        "nn.Conv2d({c}, {o}, 2, stride=2, bias=False, groups={g})",
        'nn.Conv2d({c}, {o}, 3, padding=1, padding_mode="circular")',
        "nn.ConvTranspose2d({c}, {o}, 2, stride=2, groups={g})",
    ),
    "norm2d": ("nn.BatchNorm2d({c})", "nn.BatchNorm2d({c}, affine=False)", "nn.GroupNorm(1, {c})"),
    "norm": ("nn.LayerNorm({n})", "nn.LayerNorm({n}, elementwise_affine=False)", "nn.RMSNorm({n})"),
    "act": ("nn.ReLU()", "nn.GELU()", "nn.Hardtanh(-0.5, 0.5)", "nn.SiLU()", "nn.Hardswish()", "nn.LeakyReLU(0.2)"),
}
"""Holes that take a module, made for the tensor that it is called on."""

WRITES = (".add_(1)", ".mul_(2)", ".relu_()", ".zero_()", ".copy_(torch.ones(()))", "[..., 0] = 3", ".neg_()")
WHOLE_WRITES = (".add_(1)", ".mul_(2)", ".zero_()", "[..., 0] = 3")


def _draw_tensor(rng: random.Random, shape: Sequence[int], dtype: str) -> str:
    """Write an expression for a tensor in one of several layouts."""
    layout = rng.random()
    made = list(shape)
    after = ""
    if len(made) > 1 and layout < 0.15:
        made[0], made[-1] = made[-1], made[0]
        after = ".transpose(0, -1)"
    elif layout < 0.22:
        made[0] *= 2
        after = "[::2]"
    elif layout < 0.26:
        made[-1] += 1
        after = "[..., 1:]"
    elif len(made) == 4 and layout < 0.4:
        after = ".to(memory_format=torch.channels_last)"
    size = str(tuple(made))
    if dtype in FLOATS:
        return f"torch.randn({size}, dtype={dtype}){after}".replace(", dtype=torch.float32", "")
    low = 0 if dtype == "torch.uint8" else -5
    return f"torch.randint({low}, 9, {size}, dtype={dtype}){after}"


def _dtype(value: Tensor) -> str:
    return "" if value.dtype in (torch.float32, torch.int64, torch.int32, torch.bool) else f", dtype={value.dtype}"


def _rank(hole: str) -> int:
    """Order holes by what the others depend on: a tensor of floating point, then any tensor."""
    kind = hole.rstrip("0123456789")
    return ("x", "i", "any", "y", "z").index(kind) if kind in ("x", "i", "any", "y", "z") else 9


def _size(value: Tensor, dim: int) -> int:
    """Return a size that indices fit into.

    Raises:
        Unfit: there is no such dimension, or nothing in it.
    """
    if not value.dim() or not value.shape[dim]:
        raise Unfit("nothing to index")
    return value.shape[dim]


def _is_whole(value: Tensor) -> bool:
    return not value.is_floating_point() and value.dtype is not torch.bool


def _broadcasts(value: Tensor, other: Tensor | None) -> bool:
    if other is None:
        return True
    try:
        torch.broadcast_shapes(value.shape, other.shape)
    except RuntimeError:
        return False
    return True


def _overlaps(value: Tensor) -> bool:
    """Return True if elements share memory, so that writes depend on an order."""
    return any(stride == 0 and size > 1 for size, stride in zip(value.shape, value.stride()))


def _is_tame(value: Tensor) -> bool:
    if not value.is_floating_point() or not value.numel():
        return True
    return bool(value.isfinite().all()) and float(value.detach().abs().max()) < 1e4
