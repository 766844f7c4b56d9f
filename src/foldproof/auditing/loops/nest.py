"""One loop nest, recorded over its whole iteration space at once.

Inductor's loop bodies are functions of a handler, which they call for each operation, load and store. This handler
records an ATen operator for each. Every value has one dimension for each loop variable, of the variable's size, or of
size 1 where it does not depend on it.

That is the loop's meaning if its iterations do not depend on each other, which Inductor guarantees of a single nest:
what one stores, no other iteration of the same nest loads. `Nest` checks it; the contents of a buffer for which that is
not so are arbitrary, because iterations run in vectors and threads. Elements of half precision are computed with as
float32, as the kernels do; conversions between floating-point types are identities over real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch

from foldproof.auditing.loops.indices import Indices, as_value, find_affine
from foldproof.auditing.loops.memory import Memory, Place, make_variable
from foldproof.auditing.loops.pointwise import apply_pointwise, as_tensor
from foldproof.auditing.loops.recorder import (
    Element,
    Literal,
    Operand,
    Recorder,
    Unreadable,
    Value,
    convert,
    expand,
    reshape,
)
from foldproof.auditing.loops.reductions import Reductions

aten = torch.ops.aten

FAR = 2**40
"""Index in place of one that is outside of its dimension: outside of every buffer, too."""

LONGEST = 100
"""Longest expression in a listing; longer ones are cut into lines."""


def computed_as(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels compute with elements of ``dtype``."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Nest:
    """The handler of one loop body."""

    def __init__(self, recorder: Recorder, memory: Memory, ranges: dict[Any, int], reduced: int) -> None:
        self._recorder, self._memory = recorder, memory
        self._ranges = ranges
        self._sizes = list(ranges.values())
        self._rank = len(ranges)
        self._kept = self._rank - reduced
        self._reductions = Reductions(recorder, self._sizes, self._kept)
        self._indices = Indices(
            recorder, {v: make_variable(recorder, n, k, self._rank, str(v)) for k, (v, n) in enumerate(ranges.items())}
        )
        self._mask: Value | None = None
        self._indirect: dict[Any, Value] = {}
        self._unchecked: set[Any] = set()
        self.accesses: dict[str, list[tuple[str, Any]]] = {}
        """Loads and stores by the home of the memory, each with its address."""
        self._masked: set[Any] = set()
        """Addresses that only some iterations reach."""
        self.raced: set[str] = set()
        """Homes whose contents depend on the order of iterations."""
        self.lines: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def apply(*given: Any, **options: Any) -> Value:
            operands = _with_literals(given)
            if options or not all(isinstance(x, (Value, Literal)) for x in operands):
                raise Unreadable(f"no reading of the operation {name} with these operands")
            return self._named(apply_pointwise(self._recorder, name, operands, self._rank))

        return apply

    def _named(self, value: Value) -> Value:
        """Give a long expression a line of its own."""
        if len(value.text) <= LONGEST:
            return value
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {value.text}")
        return Value(value.node, value.example, name)

    # Numbers and conversions.

    def constant(self, number: Any, dtype: torch.dtype) -> Operand:
        if isinstance(number, Element) and number.name in self._recorder.constants:
            return self._read_element(number, dtype)
        if not isinstance(number, (bool, int, float)):
            number = float(number) if dtype.is_floating_point else int(number)
        return Literal(number, computed_as(dtype))

    def _read_element(self, element: Element, dtype: torch.dtype) -> Value:
        """Return an element of a constant; the program would hold another number if the constant did."""
        made = self._recorder.hold(element.name, self._recorder.constants[element.name])
        if element.index is not None:
            made = self._recorder.call(aten.select.int, made, 0, element.index)
        made = convert(self._recorder, reshape(self._recorder, made, [1] * self._rank), computed_as(dtype))
        at = "" if element.index is None else f"[{element.index}]"
        return Value(made.node, made.example, f"{element.name}{at}")

    def index_expr(self, expression: Any, dtype: torch.dtype) -> Operand:
        found = self._indices.evaluate(expression)
        if not isinstance(found, Value):
            return Literal(found, dtype)
        made = convert(self._recorder, self._spread(found), computed_as(dtype))
        return Value(made.node, made.example, f"({self._write(expression)})")

    value_expr = index_expr

    def _spread(self, x: Value) -> Value:
        shape = [1] * (self._rank - x.example.dim()) + list(x.example.shape)
        return x if len(shape) == x.example.dim() else self._recorder.call(aten.reshape.default, x, shape, text=x.text)

    def to_dtype(self, x: Operand, dtype: torch.dtype, *how: Any, **more: Any) -> Operand:
        dtype = computed_as(dtype)
        if not isinstance(x, Literal):
            return convert(self._recorder, x, dtype)
        if dtype.is_floating_point:
            return Literal(float(x.number), dtype)
        kept = bool(x.number) if dtype == torch.bool else x.number
        return Literal(kept, dtype) if kept == x.number else convert(self._recorder, self._tensor(x), dtype)

    def to_dtype_bitcast(self, x: Operand, dtype: torch.dtype, src_dtype: torch.dtype) -> Value:
        given = convert(self._recorder, self._tensor(x), src_dtype)
        made = self._recorder.call(aten.view.dtype, given, dtype, text=given.text)
        return convert(self._recorder, made, computed_as(dtype))

    def _to_int(self, name: str, x: Operand, dtype: torch.dtype) -> Value:
        rounded = apply_pointwise(self._recorder, name, (x,), self._rank)
        return convert(self._recorder, rounded, dtype)

    def trunc_to_int(self, x: Operand, dtype: torch.dtype) -> Value:
        return self._to_int("trunc", x, dtype)

    def ceil_to_int(self, x: Operand, dtype: torch.dtype) -> Value:
        return self._to_int("ceil", x, dtype)

    def floor_to_int(self, x: Operand, dtype: torch.dtype) -> Value:
        return self._to_int("floor", x, dtype)

    def round_to_int(self, x: Operand, dtype: torch.dtype) -> Value:
        return self._to_int("round", x, dtype)

    def frexp(self, x: Operand) -> tuple[Value, Value]:
        """Mantissa and exponent."""
        given = self._tensor(x)
        return self._recorder.call_for_two(aten.frexp.Tensor, given, text=f"frexp({given.text})")

    def _tensor(self, x: Operand) -> Value:
        return as_tensor(self._recorder, x, self._rank)

    # Choices.

    def masked(self, mask: Operand, body: Callable[[], Operand], other: Any) -> Value:
        chosen = self._tensor(mask)
        outer = self._mask
        self._mask = chosen if outer is None else self._recorder.call(aten.logical_and.default, chosen, outer)
        try:
            value = body()
        finally:
            self._mask = outer
        if not isinstance(other, (Value, Literal)):
            like = value.dtype if isinstance(value, Literal) else value.example.dtype
            other = Literal(other, like)
        return self._named(apply_pointwise(self._recorder, "where", (chosen, value, other), self._rank))

    def check_bounds(self, expression: Any, size: Any, lower: bool, upper: bool) -> None:
        """Read as nothing: an index out of bounds raises in the graph, too."""

    def device_assert_async(self, condition: Operand, message: str) -> None:
        """Read as nothing: both programs are defined only where it holds."""

    # Memory.

    def indirect_indexing(self, x: Operand, size: Any, check: bool = True, wrap_neg: bool = True) -> Any:
        index = convert(self._recorder, self._tensor(x), torch.int64)
        call, length = self._recorder.call, self._indices.evaluate(size)
        if wrap_neg:
            from_end = call(aten.add.Tensor, index, length)
            index = call(aten.where.self, call(aten.lt.Scalar, index, 0), from_end, index)
        inside = call(
            aten.logical_and.default,
            call(aten.ge.Scalar, index, 0),
            call(aten.lt.Tensor, index, as_value(self._recorder, length)),
        )
        index = call(aten.where.ScalarOther, inside, index, FAR, text=x.text)
        symbol = sympy.Symbol(f"at{len(self._indirect)}", integer=True)
        if not check:
            self._unchecked.add(symbol)
        self._indirect[symbol] = self._indices.symbols[symbol] = index
        return symbol

    def load(self, name: str, index: Any) -> Value:
        self._note(name, index, "load")
        text = f"{name}[{self._write(index)}]"
        found = self._read(name, index)
        made = convert(self._recorder, found, computed_as(found.example.dtype))
        return Value(made.node, made.example, text)

    def _read(self, name: str, index: Any) -> Value:
        affine = find_affine(index, self._ranges)
        if affine is not None:
            place = Place(tuple(self._sizes), affine.strides, affine.offset)
            if self._memory.fits(name, place):
                return self._memory.read(name, place)
        checked = self._unchecked.isdisjoint(getattr(index, "free_symbols", ()))
        return self._memory.gather(name, self._address(index), self._mask, checked)

    def _address(self, index: Any) -> Value:
        return self._spread(as_value(self._recorder, self._indices.evaluate(index)))

    def store(self, name: str, index: Any, value: Operand | None, mode: str | None = None) -> None:
        if value is None:  # an assertion
            return
        if mode not in (None, "atomic_add"):
            raise Unreadable(f"no reading of a store by {mode}")
        self._put(name, index, value, self._sizes, mode == "atomic_add")

    def store_reduction(self, name: str, index: Any, value: Operand) -> None:
        self._put(name, index, value, [*self._sizes[: self._kept], *[1] * (self._rank - self._kept)], False)

    def _put(self, name: str, index: Any, value: Operand, sizes: list[int], add: bool) -> None:
        if self._mask is not None:
            raise Unreadable(f"{name} is stored to under a mask")
        tensor = self._tensor(value)
        self.lines.append(f"{name}[{self._write(index)}] {'+=' if add else '='} {tensor.text}")
        affine = None if add else find_affine(index, self._ranges)
        if affine is not None:
            place = Place(tuple(sizes), affine.strides, affine.offset)
            self._memory.write(name, place, expand(self._recorder, tensor, sizes))
        else:
            address = expand(self._recorder, self._address(index), sizes)
            self._memory.scatter(name, address, expand(self._recorder, tensor, sizes), add)
        self._note(name, index, "store")

    def _note(self, name: str, index: Any, what: str) -> None:
        """Record an access to memory, and find those that depend on the order of iterations."""
        home, offset = self._memory.find(name)
        known = self.accesses.setdefault(home.name, [])
        place = index + offset
        if self._mask is not None:
            self._masked.add(place)
        for other, there in known:
            if "store" in (what, other) and there != place and self._collide(home.name, place, there):
                self.raced.add(home.name)
        known.append((what, place))

    # What `foldproof.auditing.loops.races` asks for.

    @property
    def sizes(self) -> list[int]:
        """The number of values of each loop variable."""
        return self._sizes

    @property
    def count(self) -> int:
        """The number of iterations."""
        return math.prod(self._sizes)

    @property
    def kept(self) -> int:
        """The number of iterations of the loops around the reductions."""
        return math.prod(self._sizes[: self._kept])

    def normal(self, place: Any) -> Any:
        """Return an address in variables that are named by their position; an index that is read is no other's."""
        named = {v: sympy.Symbol(f"loop{k}") for k, v in enumerate(self._ranges)}
        return sympy.sympify(place).subs(named | {v: sympy.Dummy() for v in self._indirect})

    def addresses(self, place: Any) -> torch.Tensor | None:
        """Return the addresses of all iterations, in order; None if they depend on values."""
        found = self._address(place)
        masked = place in self._masked or not self._indirect.keys().isdisjoint(getattr(place, "free_symbols", ()))
        return None if masked or not found.known else found.example.expand(self._sizes).flatten()

    def _collide(self, name: str, first: Any, second: Any) -> bool:
        """True if one iteration reaches an address in one way that another iteration reaches in the other."""
        places = [self._address(index) for index in (first, second)]
        if self._mask is not None or not all(place.known for place in places):
            raise Unreadable(f"{name} is written and read at different places in one loop")
        a, b = (place.example.expand(self._sizes).flatten() for place in places)
        return bool(torch.isin(a[a != b], b[a != b]).any())

    def _write(self, index: Any) -> str:
        text = str(index)
        for symbol, value in self._indirect.items():
            text = text.replace(str(symbol), value.text or "…")
        return text

    # Reductions.

    def reduction(self, dtype: torch.dtype, src_dtype: torch.dtype, kind: str, value: Any) -> Any:
        values = value if isinstance(value, (tuple, list)) else (value,)
        tensors = tuple(self._tensor(v) for v in values)
        if self._mask is not None:
            raise Unreadable(f"the reduction {kind} is under a mask")
        return self._reductions.apply(kind, tensors, computed_as(dtype))

    def output(self, *values: Any) -> None:
        """End of the body."""


def _with_literals(operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the operands with bare numbers as literals: some lowerings divide a float by a number of Python."""
    floats = [x.example.dtype for x in operands if isinstance(x, Value) and x.example.dtype.is_floating_point]
    return tuple(Literal(x, floats[0]) if isinstance(x, (int, float)) and floats else x for x in operands)
