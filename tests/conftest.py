"""Settings shared by all tests."""

from __future__ import annotations

import functools
import os

import pytest
import torch
import torch._export.utils

from tests.swallowed import swallowed as swallowed  # for every test

# One thread: the same sums in the same order, and workers that run side by side do not disturb each other.
torch.set_num_threads(1)
# Inductor would start a pool of processes, each of which imports torch, to compile a handful of kernels.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Each call of `run_decompositions` lists PyTorch's composite operators fifty times, in a quarter of a second. No test
# registers one of these.
torch._export.utils._materialize_cpp_cia_ops = functools.cache(torch._export.utils._materialize_cpp_cia_ops)

SLOW = tuple(
    f"tests/{name}"
    for name in (
        *(
            "auditing/test_audit.py",
            "auditing/test_folder.py",
            "auditing/test_tied.py",
            "auditing/test_unseen_changes.py",
        ),
        *("auditing/test_watching.py", "comparison/", "cli/test_audit.py"),
        *("cli/test_process.py", "docs/", "examples/"),
        *("fusion/test_batching.py", "fusion/test_fold_growth.py", "fusion/test_fold_mutants.py"),
        *("fusion/test_fold_random.py", "fusion/test_fold_rules.py", "matrix/", "passes/", "proof/test_half.py"),
        *(
            "proof/test_zoo.py",
            "qat/",
            "report/test_document.py",
            "soundness/test_volume.py",
            "test_backend.py",
            "zoo/",
        ),
    )
)
"""Files and folders with the marker ``slow``."""


@pytest.hookimpl(tryfirst=True)  # before markers are selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whatever ran before it in its process."""
    torch.default_generator.manual_seed(0)  # of all devices it would take 5 ms, to write the stack down
