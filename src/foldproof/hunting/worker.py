"""Judging programs in a process of its own, with a limit of memory and of time for each."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from foldproof.auditing import audit
from foldproof.errors import FoldproofError, brief
from foldproof.hunting import confirm
from foldproof.hunting.corpus import Corpus, Outcome
from foldproof.hunting.coverage import list_coverage
from foldproof.hunting.fault import Fault, list_faults
from foldproof.hunting.generator import check, generate
from foldproof.hunting.known import find_known
from foldproof.hunting.program import Program, load
from foldproof.hunting.reduce import reduce_program
from foldproof.hunting.setup import Setup
from foldproof.log import log_caught

MEMORY = 12 * 2**30
"""Largest memory of a worker for data of its own, in bytes: shared memory, as that of Ray's store, does not count."""
SECONDS = 240
"""Longest time for a program; the alarm then ends the process, wherever it hangs."""
CLOSER = 600
"""Longest time for a closer look at a new fault: its confirmation, and smaller programs."""
SHRINKING = 120
"""Time after which no smaller program is tried."""


@dataclass(frozen=True)
class Batch:
    """Numbers of programs that one process judges, and the time after which it begins no more.

    ``open_corpus`` opens the corpus, which may be another machine's.
    """

    open_corpus: Callable[[], AbstractContextManager[Corpus]]
    setup: Setup
    numbers: Sequence[int]
    deadline: float


def work(batch: Batch) -> list[int]:
    """Judge the programs of a batch, and record each; return the numbers that were judged.

    The process ends early when the one that started it is gone: a later one goes on.
    """
    _limit()
    parent, done = os.getppid(), list[int]()
    with batch.open_corpus() as corpus:
        for number in batch.numbers:
            if time.time() > batch.deadline or os.getppid() != parent:
                break
            _judge(corpus, batch.setup, number)
            done.append(number)
    return done


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process: Python may hang elsewhere
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def _judge(corpus: Corpus, setup: Setup, number: int) -> None:
    signal.alarm(SECONDS)
    text = generate(number, setup.training).write(setup.training)
    corpus.begin(setup.key, number, text)
    start = time.perf_counter()
    found = judge(setup, text)
    first = corpus.end(setup.key, number, replace(found, seconds=time.perf_counter() - start, audit=None))
    signal.alarm(CLOSER)
    for cluster, fault in first:
        _look_closer(corpus, setup, number, text, cluster, fault)
    signal.alarm(0)


def _look_closer(corpus: Corpus, setup: Setup, number: int, text: str, cluster: int, fault: Fault) -> None:
    """Confirm the fault of a program that is the first or the smallest of its cluster, and make a new one smaller."""
    place = corpus.place(cluster)
    new = not place.is_dir()
    corpus.note(cluster, known=find_known(setup, fault), confirmed=confirm.confirm(confirm.write(place, setup, text)))
    if not new:
        return
    smaller = _shrink(setup, number, fault)
    if len(smaller) < len(text):
        corpus.note(cluster, text=smaller, confirmed=confirm.confirm(confirm.write(place, setup, smaller)))
    found = judge(setup, smaller).audit
    if found is not None:
        found.save(place / "reduced")


def _shrink(setup: Setup, number: int, fault: Fault) -> str:
    """Return the text of the smallest program with the fault that is found in the time."""
    start = time.monotonic()

    def shows(program: Program) -> bool:
        if time.monotonic() - start > SHRINKING:
            return False
        try:
            check(program, setup.training)
        except Exception as error:
            log_caught(error, "running a smaller program")
            return False
        return fault in judge(setup, program.write(setup.training)).faults

    return reduce_program(generate(number, setup.training), shows).write(setup.training)


def judge(setup: Setup, text: str) -> Outcome:
    """Audit the program of a text."""
    torch.manual_seed(0)
    torch.compiler.reset()
    try:
        model, inputs = load(text)
        found = audit(
            model,
            inputs,
            compiler=setup.compiler,
            options=dict(setup.options),
            training=setup.training,
        )
        steps = [(one.title, one.verdict.kind.value, one.verdict.reason) for one in found.steps if one.fired]
        outcome = "crash" if found.crash else found.kind.value.lower()
        return Outcome(
            outcome, found.conclusion, steps, found.versions, 0.0, list_faults(found), list_coverage(found), found
        )
    except FoldproofError as error:
        log_caught(error, "auditing a program")
        cause = error.__cause__
        if isinstance(cause, MemoryError) or "allocate memory" in str(cause):
            return Outcome("memory", str(error))
        crashed = cause is not None and "can't compile" in str(error)
        return Outcome("crash" if crashed else "unsuitable", str(error), faults=_crash(error) if crashed else ())
    except Exception as error:
        log_caught(error, "auditing a program")
        return Outcome("error", brief(error), faults=[Fault("foldproof", brief(error))])


def _crash(error: FoldproofError) -> list[Fault]:
    from foldproof.auditing.fault import describe_crash

    assert error.__cause__ is not None
    return [Fault("crash", describe_crash(error.__cause__))]
