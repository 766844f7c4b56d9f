"""A device that is not the CPU, on machines that have none: ``far``, with the CPU's memory and kernels.

Its tensors are real ones of PyTorch's device for backends outside of its tree. Operators refuse tensors of the CPU
beside them, as CUDA's do. With FAR_WITHOUT_FLOAT64 in the environment, it has no float64, as MPS.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch.utils import backend_registration, cpp_extension

SOURCE = Path(__file__).with_suffix(".cpp")
BUILT = Path(__file__).parents[2] / "build/far"
COMPILER = shutil.which("g++")


def build() -> Path:
    """Compile the device's library, once for each release of PyTorch, and return its path."""
    key = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = BUILT / f"far-{key}.so"
    if not library.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        own = library.with_suffix(f".{os.getpid()}")
        paths = [f"-isystem{path}" for path in cpp_extension.include_paths()]
        linked = [f"-L{path}" for path in cpp_extension.library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch"]
        options = ["-O0", "-fPIC", "-shared", "-std=c++20"]
        subprocess.run([str(COMPILER), *options, *paths, str(SOURCE), "-o", str(own), *linked], check=True)
        own.rename(library)
    return library


def register() -> str:
    """Add the device to PyTorch in this process, for good, and return its name."""
    torch.ops.load_library(build())
    backend_registration._setup_privateuseone_for_python_backend("far")
    return "far"
