"""Programs with complex numbers and Fourier transforms: proofs that people need, and mistakes that they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fft import fft, fft2, ifft, irfft, irfft2, rfft, rfft2

from foldproof import prove
from foldproof.verdict import Kind

X, ANGLE = torch.randn(2, 5, 4, 8), torch.randn(5, 4)
Z, W = torch.randn(3, 8, dtype=torch.complex64), torch.randn(3, 8, dtype=torch.complex64)
R, S = torch.randn(3, 8), torch.randn(3, 8)

Pair = tuple[Callable[..., Any], Callable[..., Any], tuple[Tensor, ...]]


# Rotary embeddings.


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """As in Meta's Llama."""
    turns = torch.polar(torch.ones_like(angle), angle)
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[:, None]).flatten(3)


def rotate_parts(x: Tensor, angle: Tensor, sign: int = 1) -> Tensor:
    c, s = angle.cos()[:, None], angle.sin()[:, None] * sign
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(3)


def rotate_halves(x: Tensor, angle: Tensor) -> Tensor:
    """As in transformers, for channels in another order."""
    x = torch.cat([x[..., ::2], x[..., 1::2]], -1)
    c, s = (torch.cat([f(angle)] * 2, -1)[:, None] for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, -1)
    out = x * c + torch.cat([-b, a], -1) * s
    return torch.stack(out.chunk(2, -1), -1).flatten(3)


# Linear layers.


class ComplexLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 8, dtype=torch.complex64))
        self.b = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    def forward(self, z: Tensor) -> Tensor:
        return F.linear(z, self.w, self.b)


class Blocks(ComplexLinear):
    sign = -1

    def forward(self, z: Tensor) -> Tensor:
        a, b = self.w.real, self.w.imag
        matrix = torch.cat([torch.cat([a, self.sign * b], 1), torch.cat([b, a], 1)])
        out = torch.cat([z.real, z.imag], -1) @ matrix.T + torch.cat([self.b.real, self.b.imag])
        return torch.complex(*out.chunk(2, -1))


class WrongBlocks(Blocks):
    sign = 1


# Fourier transforms.


def matrix_of(n: int, scale: float = 1.0, sign: int = -1) -> Tensor:
    j = torch.arange(n, dtype=torch.float64)
    angle = 2 * math.pi * (j[:, None] * j % n) / n
    return (torch.complex(angle.cos(), sign * angle.sin()) * scale).to(torch.complex64)


D, D_ORTHO, D_INVERSE = matrix_of(8), matrix_of(8, 8**-0.5), matrix_of(8, 1 / 8, 1)


def circular(x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[-1]
    at = (torch.arange(n)[:, None] - torch.arange(n)) % n
    return (x[..., at] * y[..., None, :]).sum(-1)


def filtered(x: Tensor, kernel: Tensor, shift: int = 0) -> Tensor:
    n = x.shape[-1] + kernel.shape[-1] - 1
    return irfft(rfft(x, n=n) * rfft(kernel, n=n), n=n).roll(shift, -1)


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv1d(x[:, None], kernel.flip(-1)[None, None], padding=kernel.shape[-1] - 1)[:, 0]


def spectral(x: Tensor, w: Tensor) -> Tensor:
    """A layer of a Fourier neural operator."""
    return irfft2(torch.einsum("bixy,ioxy->boxy", rfft2(x), w))


def spectral_in_parts(x: Tensor, w: Tensor, sign: int = 1) -> Tensor:
    z = rfft2(x)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("bixy,ioxy->boxy", a, b)

    real = product(z.real, w.real) - sign * product(z.imag, w.imag)
    return irfft2(torch.complex(real, product(z.real, w.imag) + product(z.imag, w.real)))


IMAGE, KERNELS = torch.randn(2, 3, 8, 8), torch.randn(3, 4, 8, 5, dtype=torch.complex64)
WINDOW = torch.hann_window(16)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return fft(fft(x, dim=-1), dim=-2).real


class MatrixMixing(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.register_buffer("a", matrix_of(n))
        self.register_buffer("b", matrix_of(m))

    def forward(self, x: Tensor) -> Tensor:
        return (self.a @ x.to(torch.complex64) @ self.b).real  # type: ignore[operator]


class FNetBlock(nn.Module):
    def __init__(self, mixing: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mixing, self.first, self.second = mixing, nn.LayerNorm(16), nn.LayerNorm(16)
        self.inner = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x + self.mixing(x))
        return self.second(x + self.inner(x))  # type: ignore[no-any-return]


PROVED: dict[str, Pair] = {
    "rotary": (rotate, rotate_parts, (X, ANGLE)),
    "rotary by halves": (rotate, rotate_halves, (X, ANGLE)),
    "linear": (ComplexLinear(), Blocks(), (Z,)),
    "conjugate": (lambda z: z.conj() * z, lambda z: z.real**2 + z.imag**2 + 0j, (Z,)),
    "absolute value": (lambda z: z.abs() ** 2, lambda z: (z * z.conj()).real, (Z,)),
    "exponential": (lambda z, w: (z + w).exp(), lambda z, w: z.exp() * w.exp(), (Z, W)),
    "quotient": (lambda z, w: z / w, lambda z, w: z * w.conj() / (w * w.conj()).real, (Z, W)),
    "adjoint": (lambda z, w: torch.einsum("ij,kj->ik", z, w.conj()), lambda z, w: z @ w.mH, (Z, W)),
    "activation": (
        lambda z: torch.complex(z.real.relu(), z.imag.relu()),
        lambda z: torch.view_as_complex(torch.view_as_real(z).relu()),
        (Z,),
    ),
    "numbers of the memory": (lambda z: z.view(torch.float32), lambda z: torch.view_as_real(z).flatten(1), (Z,)),
    "written input": (lambda z: z.real.add_(1), lambda z: z.add_(1).real, (Z,)),
    "sum of transforms": (lambda x, y: fft(x + y), lambda x, y: fft(x) + fft(y), (R, S)),
    "half": (rfft, lambda x: fft(x)[..., :5], (R,)),
    "mirrored half": (lambda x: fft(x)[..., 1:4].flip(-1), lambda x: fft(x)[..., 5:].conj(), (R,)),
    "two dimensions": (fft2, lambda x: fft(fft(x, dim=0)), (Z,)),
    "inverse": (lambda z: ifft(fft(z)), lambda z: z * 1, (Z,)),
    "inverse of norm ortho": (lambda z: ifft(fft(z, norm="ortho"), norm="ortho"), lambda z: z * 1, (Z,)),
    "real inverse": (lambda x: irfft2(rfft2(x), s=(12, 5)), lambda x: x * 1, (torch.randn(12, 5),)),
    "long inverse": (lambda x: irfft(rfft(x)), lambda x: x * 1, (torch.randn(2, 64),)),
    "circular convolution": (circular, lambda x, y: irfft(rfft(x) * rfft(y)), (R, S)),
    "convolution": (convolved, filtered, (torch.randn(2, 13), torch.randn(4))),
    "energy": (
        lambda x: x.square().sum(-1),
        lambda x: (rfft(x).abs().square() * torch.tensor([1.0, 2, 2, 2, 1])).sum(-1) / 8,
        (R,),
    ),
    "spectral layer": (spectral, spectral_in_parts, (IMAGE, KERNELS)),
    "spectrogram": (
        lambda x: torch.stft(x, 16, 4, window=WINDOW, return_complex=True).abs(),
        lambda x: torch.view_as_real(torch.stft(x, 16, 4, window=WINDOW, return_complex=True)).square().sum(-1).sqrt(),
        (torch.randn(2, 64),),
    ),
    "longer than a matrix": (lambda x: fft(x * 2), lambda x: fft(x + x), (torch.randn(4096),)),
    "FNet": (FNetBlock(Mixing()), FNetBlock(Mixing()).eval(), (torch.randn(2, 8, 16),)),
}

PROVED_WITHIN: dict[str, Pair] = {
    "matrix": (fft, lambda z: z @ D, (Z,)),
    "matrix of norm ortho": (lambda z: fft(z, norm="ortho"), lambda z: z @ D_ORTHO, (Z,)),
    "matrix over a root": (lambda z: fft(z, norm="ortho"), lambda z: z @ D / math.sqrt(8), (Z,)),
    "inverse matrix": (ifft, lambda z: z @ D_INVERSE, (Z,)),
    "transform and inverse matrix": (lambda z: z * 1, lambda z: fft(z) @ D_INVERSE, (Z,)),
    "FNet by matrices": (FNetBlock(Mixing()), FNetBlock(MatrixMixing(8, 16)), (torch.randn(2, 8, 16),)),
}

REFUTED: dict[str, Pair] = {
    "rotation the other way": (rotate, lambda x, a: rotate_parts(x, a, -1), (X, ANGLE)),
    "rotation off by a position": (rotate, lambda x, a: rotate(x, a.roll(1, 0)), (X, ANGLE)),
    "sign of a block": (ComplexLinear(), WrongBlocks(), (Z,)),
    "conjugate forgotten": (lambda z, w: z @ w.mH, lambda z, w: z @ w.mT, (Z, W)),
    "output not conjugated": (lambda z: z.conj(), lambda z: z.clone(), (Z,)),
    "negative view as it lies": (lambda z: z.conj().imag, lambda z: z.imag, (Z,)),
    "imaginary part lost": (lambda z: z.to(torch.float32), lambda z: z.abs(), (Z,)),
    "other part written": (lambda z: z.real.add_(1), lambda z: z.add_(1 + 1j).real, (Z,)),
    "norm dropped": (lambda z: fft(z, norm="ortho"), fft, (Z,)),
    "transform the other way": (fft, lambda z: z @ D.conj(), (Z,)),
    "one-sided spectrum weighted wrong": (
        lambda x: x.square().sum(-1),
        lambda x: (rfft(x).abs().square() * 2).sum(-1) / 8,
        (R,),
    ),
    "filter off by one": (convolved, lambda x, k: filtered(x, k, 1), (torch.randn(2, 13), torch.randn(4))),
    "correlation": (circular, lambda x, y: irfft(rfft(x) * rfft(y).conj()), (R, S)),
    "sign in a spectral layer": (spectral, lambda x, w: spectral_in_parts(x, w, -1), (IMAGE, KERNELS)),
    "imaginary part of a transform": (Mixing(), lambda x: fft2(x).imag, (torch.randn(2, 8, 16),)),
}


@pytest.mark.parametrize("name", PROVED)
def test_proved(name: str) -> None:
    first, second, inputs = PROVED[name]
    verdict = prove(first, second, inputs)
    assert verdict.kind is Kind.PROVED and verdict.claim is not None, verdict
    assert verdict.claim.all_inputs and verdict.claim.all_parameters


@pytest.mark.parametrize("name", PROVED_WITHIN)
def test_proved_but_for_rounded_tables(name: str) -> None:
    first, second, inputs = PROVED_WITHIN[name]
    verdict = prove(first, second, inputs)
    assert verdict.kind is Kind.PROVED_WITHIN, verdict
    assert all(0 < step.bound < 1e-6 for step in verdict.steps)


@pytest.mark.parametrize("name", REFUTED)
def test_refuted(name: str) -> None:
    first, second, inputs = REFUTED[name]
    verdict = prove(first, second, inputs)
    assert verdict.kind is Kind.REFUTED, verdict


def test_an_identity_that_holds_but_for_rounding_in_float64_is_not_refuted() -> None:
    """The logarithm takes another branch than the exponential's inverse would; float64 rounds both."""
    assert prove(lambda z: z.log().exp(), lambda z: z * 1, (Z,)).kind in (Kind.PROVED, Kind.ROUNDING)


def test_exported_programs() -> None:
    exported = torch.export.export(ComplexLinear(), (Z,))
    for other in (exported.run_decompositions(), torch.export.export(Blocks(), (Z,))):
        verdict = prove(exported, other, (Z,))
        assert verdict.kind is Kind.PROVED and verdict.claim is not None and verdict.claim.is_general, verdict
    verdict = prove(exported, torch.export.export(WrongBlocks(), (Z,)), (Z,))
    assert verdict.kind is Kind.REFUTED and verdict.difference is not None


def test_a_changed_parameter_is_no_other_parameter() -> None:
    """Real and imaginary parts of a parameter vary independently."""

    class Swapped(ComplexLinear):
        def forward(self, z: Tensor) -> Tensor:
            return F.linear(z, torch.complex(self.w.imag, self.w.real), self.b)

    assert prove(ComplexLinear(), Swapped(), (Z,)).kind is Kind.REFUTED


def test_infinite_inputs_are_undecided() -> None:
    z = torch.tensor([complex(math.inf, 0), 1j])
    assert prove(lambda z: z * z, lambda z: z**2, (z,)).kind is Kind.UNDECIDED


def test_models_without_weights() -> None:
    with torch.device("meta"):
        models, z = (ComplexLinear(), Blocks(), WrongBlocks()), torch.randn(3, 8, dtype=torch.complex64)
    assert prove(models[0], models[1], (z,)).kind is Kind.PROVED
    assert prove(models[0], models[2], (z,)).kind is Kind.REFUTED
