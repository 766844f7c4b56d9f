"""Random small models: chains and graphs of linear operators, affines, selections, pools, sums and curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from foldproof.fusion.examples.models import lively

Shape = tuple[int, ...]
SamplePoint = Callable[[Any], Any]

LARGEST = 600
"""Elements of the largest value."""


@dataclass(frozen=True)
class AffineStep:
    """One operator of a model: its operands, its options, and the owner of its parameters if another step owns them."""

    kind: str
    operands: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    shared: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A model: ``inputs`` are shapes, values are numbered from them on; ``outputs`` are numbers of values."""

    inputs: tuple[Shape, ...]
    steps: tuple[AffineStep, ...]
    outputs: tuple[int, ...]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return lively(Model(self))

    def example(self, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Inputs, the first axis of each ``batch`` long."""
        generator = torch.Generator().manual_seed(batch)
        return tuple(torch.randn(batch, *shape[1:], generator=generator).to(dtype) for shape in self.inputs)

    def __str__(self) -> str:
        lines = [f"v{i} = input{shape}" for i, shape in enumerate(self.inputs)]
        for i, step in enumerate(self.steps, start=len(self.inputs)):
            given = [f"v{x}" for x in step.operands] + [f"{k}={v!r}" for k, v in step.options.items()]
            given += [] if step.shared is None else [f"with the parameters of v{step.shared}"]
            lines.append(f"v{i} = {step.kind}({', '.join(given)})")
        return "\n".join([*lines, "return " + ", ".join(f"v{x}" for x in self.outputs)])


class Model(nn.Module):
    """A module built from a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.parts = nn.ModuleDict()
        for i, step in enumerate(recipe.steps, start=len(recipe.inputs)):
            made = KINDS[step.kind].make(**step.options) if step.shared is None else None
            if made is not None:
                self.parts[str(i)] = made

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(inputs)
        for i, step in enumerate(self.recipe.steps, start=len(inputs)):
            name = str(i if step.shared is None else step.shared)
            part = dict(self.parts.items()).get(name)
            values.append(KINDS[step.kind].apply(part, *(values[x] for x in step.operands), **step.options))
        return tuple(values[x] for x in self.recipe.outputs)


class Held(nn.Module):
    """Parameters, which an operator reads itself."""

    def __init__(self, *shapes: Shape) -> None:
        super().__init__()
        self.held = nn.ParameterList([nn.Parameter(torch.randn(shape)) for shape in shapes])

    def forward(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Kind:
    """An operator: draws options that suit a value of a shape (None if none do), makes its parameters, and runs."""

    draw: Callable[[SamplePoint, Shape], dict[str, Any] | None]
    apply: Callable[..., Tensor]
    make: Callable[..., nn.Module | None] = lambda **_: None


def _of(draw: SamplePoint, *choices: Any) -> Any:
    return draw(st.sampled_from(choices))


def _axis(draw: SamplePoint, shape: Shape) -> int:
    return draw(st.integers(0, len(shape) - 1))  # type: ignore[no-any-return]


# Linear operators


def _draw_convolution(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    spatial = _of(draw, *[n for n in (1, 2) if len(shape) in (n + 1, n + 2)] or [0])
    if not spatial:
        return None
    channels, smallest = shape[-spatial - 1], min(shape[-spatial:])
    groups = _of(draw, *[g for g in (1, 1, 2, 3, channels) if channels % g == 0])
    kernel = _of(draw, *[k for k in (1, 2, 3) if k <= smallest])
    return {
        "spatial": spatial,
        "channels": channels,
        "out": groups * _of(draw, *[n for n in (1, 2, 3) if groups * n <= 6] or [1]),
        "kernel": kernel,
        "stride": _of(draw, 1, 1, 2),
        "padding": _of(draw, 0, 0, 1),
        "groups": groups,
        "bias": draw(st.booleans()),
        "transposed": _of(draw, False, False, True),
    }


def _make_convolution(
    spatial: int, channels: int, out: int, kernel: int, transposed: bool, **options: Any
) -> nn.Module:
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d)
    return kinds[spatial - 1](channels, out, kernel, **options)


def _draw_linear(draw: SamplePoint, shape: Shape) -> dict[str, Any]:
    return {"features": shape[-1], "out": draw(st.integers(1, 6)), "bias": draw(st.booleans())}


def _draw_product(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    if len(shape) < 2:
        return None
    how = _of(draw, "right", "left", *(["addmm"] if len(shape) == 2 else []), *(["einsum"] if len(shape) == 3 else []))
    size = shape[-2] if how == "left" else shape[-1]
    return {"how": how, "size": size, "out": draw(st.integers(1, 6)), "turned": draw(st.booleans())}


def _make_product(how: str, size: int, out: int, turned: bool) -> nn.Module:
    shape = (out, size) if turned != (how == "left") else (size, out)
    return Held(shape, (out,))


def _product(part: Any, x: Tensor, how: str, size: int, out: int, turned: bool) -> Tensor:
    weight, bias = part.held
    weight = weight.t() if turned else weight
    if how == "left":
        return torch.matmul(weight, x)
    if how == "addmm":
        return torch.addmm(bias, x, weight, alpha=2, beta=3)
    return torch.einsum("bik,kn->bni", x, weight) if how == "einsum" else torch.matmul(x, weight)


# Affines


def _draw_norm(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    if len(shape) not in (2, 3, 4):
        return None
    return {
        "rank": len(shape),
        "channels": shape[1],
        "affine": _of(draw, True, True, False),
        "eps": _of(draw, 1e-5, 0.1),
    }


def _make_norm(rank: int, **options: Any) -> nn.Module:
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    return kind(options.pop("channels"), **options)


def _draw_arithmetic(draw: SamplePoint, shape: Shape) -> dict[str, Any]:
    how = _of(draw, "mul", "add", "sub", "rsub", "div", "addcmul", "alpha", "number", "positive")
    kept = draw(st.integers(0, len(shape)))  # trailing axes; of these, some are broadcast
    sizes = [n if draw(st.booleans()) else 1 for n in shape[len(shape) - kept :]]
    if kept and len(sizes) == len(shape):
        sizes[0] = 1  # the batch may be of any size
    return {"how": how, "shape": tuple(sizes)}


def _arithmetic(part: Any, x: Tensor, how: str, shape: Shape) -> Tensor:
    a, b = part.held
    match how:
        case "mul":
            return x * a
        case "add":
            return a + x
        case "sub":
            return x - a
        case "rsub":
            return a - x
        case "div":
            return x / (a.abs() + 0.5)
        case "addcmul":
            return torch.addcmul(b, x, a, value=0.5)
        case "alpha":
            return torch.sub(a, x, alpha=2)
        case "positive":
            return x * (a.abs() + 0.1)
    return -(x * 0.5 + 2) / 3


def _draw_own(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    how = _of(draw, "layer", "rms", "group")
    if how == "group" and len(shape) < 2:
        return None
    size = shape[1] if how == "group" else shape[-1]
    return {"how": how, "size": size}


def _make_own(how: str, size: int) -> nn.Module:
    part = nn.GroupNorm(1, size) if how == "group" else nn.LayerNorm(size) if how == "layer" else nn.RMSNorm(size)
    for parameter in part.parameters():
        nn.init.normal_(parameter)
    return part


# Selections


def _draw_selection(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    rank, axis = len(shape), _axis(draw, shape)
    size = shape[axis]
    how = _of(draw, *_SELECTIONS)
    match how:
        case "transpose" if rank > 1:
            return {"how": how, "axis": axis, "other": _axis(draw, shape)}
        case "flatten" if rank > 1 and axis < rank - 1:
            return {"how": how, "axis": axis, "other": draw(st.integers(axis + 1, rank - 1))}
        case "split" if axis and rank < 4 and size in (4, 6):
            return {"how": how, "axis": axis, "sizes": (_of(draw, 2, size // 2), -1)}
        case "unsqueeze" if rank < 4:
            return {"how": how, "axis": axis}
        case "squeeze" if size == 1 and rank > 1:
            return {"how": how, "axis": axis}
        case "flip" | "clone" | "contiguous" | "dropout" | "shape":
            return {"how": how, "axis": axis}
        case "roll" if axis:
            return {"how": how, "axis": axis, "by": _of(draw, 1, -1)}
        case "slice" if axis and size > 1:
            return {"how": how, "axis": axis, "start": draw(st.integers(0, size - 1)), "step": _of(draw, 1, 1, 2)}
        case "chunk" if axis and size > 1:
            return {"how": how, "axis": axis, "which": _of(draw, 0, 1)}
        case "index" if axis:
            places = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size))
            return {"how": how, "axis": axis, "places": tuple(places)}
        case "select" if axis and rank > 2:
            return {"how": how, "axis": axis, "place": draw(st.integers(0, size - 1))}
        case "repeat" if axis and size <= 3:
            return {"how": how, "axis": axis}
        case "expand" if size == 1 and axis:
            return {"how": how, "axis": axis, "to": _of(draw, 2, 3)}
        case "pad" if axis and rank > 1:
            mode = (
                _of(draw, "zeros", "ones", "reflect")
                if shape[-1] > 1 and rank in (2, 3)
                else _of(draw, "zeros", "ones")
            )
            return {"how": how, "mode": mode}
    return None


_SELECTIONS = (
    *("transpose", "transpose", "flatten", "flatten", "split", "split", "unsqueeze", "squeeze", "flip", "clone"),
    *(
        "contiguous",
        "dropout",
        "shape",
        "roll",
        "slice",
        "slice",
        "chunk",
        "index",
        "select",
        "repeat",
        "expand",
        "pad",
    ),
)


def _selection(part: None, x: Tensor, how: str, axis: int = 0, **o: Any) -> Tensor:
    match how:
        case "transpose":
            return x.transpose(axis, o["other"])
        case "flatten":
            return x.flatten(axis, o["other"])
        case "split":
            return x.unflatten(axis, o["sizes"])
        case "unsqueeze":
            return x.unsqueeze(axis)
        case "squeeze":
            return x.squeeze(axis)
        case "flip":
            return x.flip(axis)
        case "contiguous":
            return x.contiguous()
        case "dropout":
            return F.dropout(x, 0.5, training=False)
        case "shape":
            return x.flatten().reshape_as(x)
        case "roll":
            return x.roll(o["by"], axis)
        case "slice":
            return x[(slice(None),) * axis + (slice(o["start"], None, o["step"]),)]
        case "chunk":
            return x.chunk(2, axis)[o["which"]]
        case "index":
            return x[(slice(None),) * axis + (list(o["places"]),)]
        case "select":
            return x.select(axis, o["place"])
        case "repeat":
            return x.repeat([2 if i == axis else 1 for i in range(x.dim())])
        case "expand":
            return x.expand([o["to"] if i == axis else -1 for i in range(x.dim())])
        case "pad" if o["mode"] == "reflect":
            return F.pad(x, (1, 1), mode="reflect")
        case "pad":
            return F.pad(x, (1, 1), value=float(o["mode"] == "ones"))
    return x.clone()


# Pools


def _draw_pool(draw: SamplePoint, shape: Shape) -> dict[str, Any] | None:
    how = _of(draw, "avg", "max", "mean", "mean", "sum", "amax", "nearest", "linear")
    if how in ("mean", "sum", "amax"):
        axes = draw(st.sets(st.integers(1, len(shape) - 1), min_size=1)) if len(shape) > 1 else None
        if not axes:
            return None
        return {"how": how, "axes": tuple(sorted(axes)), "keep": len(axes) == len(shape) - 1 or draw(st.booleans())}
    if len(shape) not in (3, 4) or shape[-1] < 2 or min(shape[2:]) < 2:
        return None
    if how in ("nearest", "linear"):
        return {"how": how, "spatial": len(shape) - 2}
    padding = draw(st.integers(0, 1))
    return {"how": how, "spatial": len(shape) - 2, "padding": padding, "counted": draw(st.booleans())}


def _pool(part: None, x: Tensor, how: str, **o: Any) -> Tensor:
    match how:
        case "mean" | "sum" | "amax":
            return getattr(x, how)(o["axes"], keepdim=o["keep"])  # type: ignore[no-any-return]
        case "nearest":
            return F.interpolate(x, scale_factor=2)
        case "linear":
            return F.interpolate(x, scale_factor=2, mode=("linear", "bilinear")[o["spatial"] - 1])
        case "max":
            return (F.max_pool1d, F.max_pool2d)[o["spatial"] - 1](x, 2, stride=1, padding=o["padding"])
    kind = (F.avg_pool1d, F.avg_pool2d)[o["spatial"] - 1]
    return kind(x, 2, stride=1, padding=o["padding"], count_include_pad=o["counted"])


# Curves, and in-place operators


def _curve(part: None, x: Tensor, how: str) -> Tensor:
    match how:
        case "relu_":
            return x.relu_()
        case "mul_":
            return x.mul_(0.5)
        case "add_":
            return x.add_(1)
        case "view, then mul_":
            seen = x.view(x.shape)
            x.mul_(2)
            return seen
        case "leaky_relu":
            return F.leaky_relu(x, 0.1)
        case "softmax":
            return x.softmax(-1)
    return getattr(torch, how)(x)  # type: ignore[no-any-return]


_CURVES = (
    "relu",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "softmax",
    "neg",
    "relu_",
    "mul_",
    "add_",
    "view, then mul_",
)


# Two values


def _two(part: None, x: Tensor, y: Tensor, how: str, axis: int = 0) -> Tensor:
    match how:
        case "cat":
            return torch.cat([x, y], axis)
        case "stack":
            return torch.stack([x, y], axis)
        case "add, alpha":
            return torch.add(x, y, alpha=2)
        case "bmm":
            return torch.matmul(x, y.transpose(-1, -2))
        case "add_":
            return x.add_(y)
    return getattr(torch, how)(x, y)  # type: ignore[no-any-return]


KINDS = {
    "convolution": Kind(_draw_convolution, lambda part, x, **_: part(x), _make_convolution),
    "linear": Kind(
        _draw_linear, lambda part, x, **_: part(x), lambda features, out, bias: nn.Linear(features, out, bias)
    ),
    "product": Kind(_draw_product, _product, _make_product),
    "norm": Kind(_draw_norm, lambda part, x, **_: part(x), _make_norm),
    "arithmetic": Kind(_draw_arithmetic, _arithmetic, lambda how, shape: Held(shape, shape)),
    "own norm": Kind(_draw_own, lambda part, x, **_: part(x), _make_own),
    "selection": Kind(_draw_selection, _selection),
    "pool": Kind(_draw_pool, _pool),
    "curve": Kind(lambda draw, shape: {"how": _of(draw, *_CURVES)}, _curve),
    "two": Kind(lambda draw, shape: None, _two),
}
_OFTEN = (
    *("convolution", "convolution", "linear", "linear", "product", "norm", "norm", "norm", "own norm"),
    *("arithmetic", "arithmetic", "arithmetic", "selection", "selection", "selection", "pool", "curve"),
    *("two", "two", "two"),
)


def _draw_two(draw: SamplePoint, shapes: list[Shape], x: int) -> tuple[int, dict[str, Any]] | None:
    """Draw a second operand, and an operator on both."""
    mine = shapes[x]
    alike = [i for i, shape in enumerate(shapes) if shape == mine]
    how = _of(draw, "add", "add", "sub", "mul", "maximum", "add, alpha", "cat", "cat", "stack", "bmm", "add_")
    if how == "cat":
        axis = _axis(draw, mine)
        fit = [
            i
            for i, shape in enumerate(shapes)
            if len(shape) == len(mine) and all(a == b for k, (a, b) in enumerate(zip(mine, shape)) if k != axis)
        ]
        return (_of(draw, *fit), {"how": how, "axis": axis}) if axis else None
    y = _of(draw, *alike)
    if how == "stack":
        return (y, {"how": how, "axis": draw(st.integers(1, len(mine)))}) if len(mine) < 4 else None
    if how == "bmm":
        return (y, {"how": how}) if len(mine) == 3 else None
    if how in ("add", "mul"):  # also broadcast
        fit = [i for i, s in enumerate(shapes) if len(s) == len(mine) and all(b in (1, a) for a, b in zip(mine, s))]
        y = _of(draw, *fit)
    return y, {"how": how}


def _shape_of(step: AffineStep, shapes: list[Shape]) -> Shape | None:
    """Return the shape of a step's result; None if it refuses its operands."""
    with torch.device("meta"), torch.no_grad():
        part = KINDS[step.kind].make(**step.options)
        if part is not None:
            part.eval()
        try:
            found = KINDS[step.kind].apply(part, *(torch.empty(shapes[x]) for x in step.operands), **step.options)
        except (RuntimeError, ValueError, IndexError):
            return None
    return tuple(found.shape)


def _draw_step(draw: SamplePoint, shapes: list[Shape], steps: list[AffineStep], inputs: int) -> AffineStep | None:
    x = len(shapes) - 1 - _of(draw, *[back for back in (0, 0, 0, 1, 2, 3) if back < len(shapes)])
    again = [
        i
        for i, step in enumerate(steps, start=inputs)
        if step.shared is None and step.kind in ("convolution", "linear", "product", "norm", "arithmetic")
    ]
    if again and _of(draw, *[False] * 5, True):  # a module that was called before
        i = _of(draw, *again)
        old = steps[i - inputs]
        return AffineStep(old.kind, (x,), old.options, i)
    kind = _of(draw, *_OFTEN)
    if kind == "two":
        found = _draw_two(draw, shapes, x)
        return None if found is None else AffineStep(kind, (x, found[0]), found[1])
    options = KINDS[kind].draw(draw, shapes[x])
    return None if options is None else AffineStep(kind, (x,), options)


@st.composite
def recipes(draw: SamplePoint, longest: int = 9) -> Recipe:
    """Models of up to ``longest`` operators, whose inputs have a first axis of length 4."""
    inputs = tuple(
        (4, *(_of(draw, 3, 4, 6) for _ in range(draw(st.integers(1, 3))))) for _ in range(draw(st.integers(1, 2)))
    )
    shapes: list[Shape] = list(inputs)
    steps: list[AffineStep] = []
    for _ in range(draw(st.integers(2, longest))):
        step = _draw_step(draw, shapes, steps, len(inputs))
        if step is None:
            continue
        shape = _shape_of(step, shapes)
        if shape is not None and 0 < math.prod(shape) <= LARGEST:
            steps.append(step)
            shapes.append(shape)
    others = draw(st.lists(st.integers(len(inputs), len(shapes) - 1), max_size=2)) if steps else []
    return Recipe(inputs, tuple(steps), tuple(dict.fromkeys([len(shapes) - 1, *others])))
