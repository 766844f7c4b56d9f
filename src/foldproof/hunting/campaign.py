"""A campaign: workers that judge one program after another, until the time or the number of programs is reached."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from foldproof.auditing.compilers import find_compiler
from foldproof.errors import FoldproofError
from foldproof.hunting.corpus import Corpus, Outcome
from foldproof.hunting.fault import Fault
from foldproof.hunting.setup import Setup
from foldproof.hunting.worker import Batch, work
from foldproof.log import log_caught
from foldproof.processes import Died, Executor, Processes

SIZE = 25
"""Programs for each process: starting one takes as long as several programs."""

Progress = Callable[[int, int | None, str], None]


def hunt(
    setup: Setup,
    folder: Path,
    *,
    programs: int | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    executor: Executor,
    progress: Progress = lambda done, total, what: None,
) -> int:
    """Judge programs until one of the limits; return their number.

    Programs in the corpus are not judged again, so that a second call goes on; one whose process was killed is.

    Raises:
        FoldproofError: the corpus can't be written, or the compiler is unknown.
    """
    find_compiler(setup.compiler)
    deadline = math.inf if minutes is None else time.time() + 60 * minutes
    with Corpus(folder, create=True) as corpus, Processes(jobs, executor) as processes:
        open_corpus = executor.lend(Corpus, folder)
        corpus.forget_begun(setup.key)
        before = corpus.numbers(setup.key)
        numbers = (number for number in itertools.count() if number not in before)
        left = math.inf if programs is None else programs
        running: dict[Future[list[int]], list[int]] = {}
        done = 0
        while True:
            while len(running) < jobs and left > 0 and time.time() < deadline:
                taken = list(itertools.islice(numbers, int(min(SIZE, math.ceil(left / jobs), left))))
                running[processes.submit(work, Batch(open_corpus, setup, taken, deadline))] = taken
                left -= len(taken)
            if not running:
                return done
            ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for future in ended:
                taken = running.pop(future)
                try:
                    judged = future.result()
                except Died as error:
                    log_caught(error, "judging programs")
                    judged = _record_death(corpus, setup, taken, error)
                rest = [number for number in taken if number not in judged]
                if rest and time.time() < deadline:
                    running[processes.submit(work, Batch(open_corpus, setup, rest, deadline))] = rest
            done = sum(corpus.outcomes(setup.key).values()) - len(corpus.list_begun(setup.key)) - len(before)
            faults = len(corpus.clusters(setup.key))
            progress(done, programs, f"hunting in {folder}, {faults} fault{'s' * (faults != 1)} so far")


def _record_death(corpus: Corpus, setup: Setup, taken: list[int], error: Died) -> list[int]:
    """Record the program that ended its process; return the programs of the batch that have an outcome."""
    begun = [number for number in corpus.list_begun(setup.key) if number in taken]
    hung = error.code == -signal.SIGALRM
    name = "hang" if hung else str(error)
    for number in begun:
        corpus.end(
            setup.key, number, Outcome("hang" if hung else "killed", str(error), faults=[Fault("process", name)])
        )
    judged = [number for number in taken if number in corpus.numbers(setup.key)]
    if not judged:
        raise FoldproofError(f"a process that judges programs fails before it begins ({error})") from error
    return judged
