"""Settings shared by all tests."""

from __future__ import annotations

import functools
import gc
import os
from collections import Counter

import pytest
import torch
import torch._export.utils

from tests.patterns import export_patterns_once
from tests.swallowed import swallowed as swallowed  # for every test

# One thread: the same sums in the same order, and workers that run side by side do not disturb each other.
torch.set_num_threads(1)
# Inductor would start a pool of processes, each of which imports torch, to compile a handful of kernels.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# Each call of `run_decompositions` lists PyTorch's composite operators fifty times, in a quarter of a second. No test
# registers one of these.
torch._export.utils._materialize_cpp_cia_ops = functools.cache(torch._export.utils._materialize_cpp_cia_ops)

export_patterns_once()

SLOW = tuple(
    f"tests/{name}"
    for name in (
        *(
            "auditing/test_audit.py",
            "auditing/test_caches.py",
            "auditing/test_folder.py",
            "auditing/test_kernels.py",
            "auditing/test_known_faults.py",
            "auditing/test_tied.py",
            "auditing/test_training.py",
            "auditing/test_training_faults.py",
            "auditing/test_unseen_changes.py",
        ),
        *("auditing/test_watching.py", "comparison/", "cli/test_audit.py"),
        *("porting/test_bugs.py", "porting/test_conversions.py", "porting/test_modes.py"),
        *("cli/test_many.py", "cli/test_process.py", "devices/", "docs/", "examples/", "hunting/test_campaign.py"),
        *("fusion/test_batching.py", "fusion/test_fold_growth.py", "fusion/test_fold_mutants.py"),
        *(
            "fusion/test_fold_random.py",
            "fusion/test_fold_rules.py",
            "matrix/",
            "passes/",
            "proof/test_half.py",
            "proof/test_language_models.py",
        ),
        *(
            "proof/test_zoo.py",
            "qat/",
            "report/test_document.py",
            "soundness/test_volume.py",
            "test_action.py",
            "test_backend.py",
            "training/",
            "zoo/",
        ),
    )
)
"""Files and folders with the marker ``slow``."""


SAMPLED = {
    "tests/auditing/test_training_faults.py::test_a_fault_is_refuted_at_its_step": 8,
    "tests/porting/test_bugs.py::test_a_bug": 6,
    "tests/proof/test_language_models.py::test_a_planted_change": 16,
    "tests/fusion/test_fold_mutants.py::test_is_withdrawn": 10,
    "tests/fusion/test_fold_rules.py": 13,
    "tests/fusion/test_batching.py": 3,
    "tests/fusion/test_merging.py::test_one_is_left": 6,
    "tests/fusion/test_in_place.py": 3,
    "tests/fusion/test_computed.py::test_it_is_computed_once": 8,
    "tests/fusion/test_hints.py::test_a_hint": 10,
    "tests/proof/test_half.py": 8,
    "tests/proof/test_zoo.py::test_pytorch_proves_itself": 4,
    "tests/auditing/test_audit.py::test_without_the_culprit_all_is_well": 8,
    "tests/auditing/test_audit.py::test_the_culprit_is_named": 2,
    # The same cases, so that their audits serve both tests.
    "tests/auditing/test_audit.py::test_all_other_steps_are_proved": 2,
    "tests/auditing/test_audit.py::test_a_tap_changes_nothing": 3,
    "tests/auditing/test_tied.py::test_an_audit_of_tied_weights": 2,
    "tests/auditing/test_unseen_changes.py::test_models_with_effects_and_breaks": 3,
    "tests/comparison/test_compare.py::test_no_false_alarm_on_the_zoo": 2,
    "tests/comparison/test_sources.py::test_a_wrong_kernel_is_found": 2,
    "tests/docs/test_findings.py::test_it_is_still_wrong": 2,
    "tests/qat/test_fold_qat.py": 7,
    "tests/rounding/test_answers.py::test_the_kernel_keeps_the_floor": 6,
    "tests/qat/test_fold_qat_mutants.py": 6,
    "tests/soundness/test_rounding.py::test_constants_that_nothing_folds_explain_nothing": 3,
    "tests/shadow/test_opaque.py": 3,
    "tests/training/test_steps.py::test_a_wrong_optimizer_is_refuted": 3,
    "tests/training/test_steps.py::test_steps_on_lists_are_the_plain_ones": 3,
    "tests/training/test_functions.py::test_a_wrong_backward_is_refuted": 2,
    "tests/comparison/test_alarms.py": 3,
    "tests/report/test_browser.py::test_axe_finds_no_violation_with_plots_drawn": 3,
    "tests/operators/test_foreach.py::test_real_operators": 3,
    "tests/shadow/test_algebraic_random.py": 3,
    "tests/shadow/test_rules.py::test_over_the_reals": 2,
    "tests/shadow/test_rules.py::test_exact_rules_modulo_p": 2,
    "tests/shadow/test_rules.py::test_results_look_like_the_operators": 2,
    "tests/auditing/test_known_faults.py": 16,
    "tests/auditing/loops/test_planted.py::test_a_planted_fault_is_refuted_in_its_loop": 2,
    "tests/soundness/test_outside.py::test_two_calls_show_it_and_nothing_stays": 2,
    "tests/proof/test_cuts.py::test_roots_of_several_numbers_are_read_at_any_depth": 2,
    "tests/comparison/test_compare.py::test_fewer_of_large_inputs_are_tried": 3,
    "tests/comparison/test_far.py::test_neither_side_is_wrong_is_not_said_of_a_wrong_one": 2,
    "tests/comparison/test_effects.py::TestState": 2,
    "tests/auditing/test_audit.py::test_right_compilations_are_proved": 2,
    "tests/matrix/test_matrix.py::test_audits": 12,
    "tests/matrix/test_matrix.py::test_inductor": 8,
    "tests/matrix/test_matrix.py::test_proofs": 4,
}
"""Tests with many cases of one kind, of which CI runs the first and each n-th; the others are exhaustive.

The name of a file stands for each of its tests.
"""

EXHAUSTIVE = (
    "tests/comparison/test_candidates.py::test_files[aoti]",
    "tests/comparison/test_compare.py::test_no_false_alarm_on_random_models_compiled_by_inductor[1]",
    "tests/comparison/test_sources.py::test_pytorch_179574_is_the_mean_and_not_the_linears",
    "tests/auditing/test_kernels.py::test_numbers_that_cancel_are_no_wrong_numbers",
    "tests/fusion/test_fold_growth.py",
    "tests/passes/test_pipelines.py::test_aotinductor",
    *(
        f"tests/matrix/test_matrix.py::test_proofs[{name}]"
        for name in (
            *("Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "GRU", "float16", "float64"),
            *("puts out a tuple", "puts out a dict", "puts out a registered dataclass"),
            *("takes keywords", "takes None", "takes a list and a dict"),
        )
    ),
    "tests/qat/test_convert.py::test_convert[C per channel",
    "tests/auditing/test_audit.py::test_the_culprit_is_named[inductor: freezing ConvTranspose2d",
    "tests/auditing/test_audit.py::test_all_other_steps_are_proved[inductor: freezing ConvTranspose2d",
)


@pytest.hookimpl(tryfirst=True)  # before markers are selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
        if item.nodeid.startswith(EXHAUSTIVE):
            item.add_marker("exhaustive")
        function = item.nodeid.partition("[")[0]
        for every in (every for name, every in SAMPLED.items() if function.startswith(name)):
            if seen[function] % every:
                item.add_marker("exhaustive")
            seen[function] += 1


def pytest_collection_finish() -> None:
    """Spares the garbage collector what is there before the first test: going through it took a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # graphs are many objects that live long: a third of the rest


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Each test draws the same numbers, whatever ran before it in its process."""
    torch.default_generator.manual_seed(0)  # of all devices it would take 5 ms, to write the stack down
