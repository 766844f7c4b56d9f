"""A campaign: workers that judge one program after another, until the time or the number of programs is reached."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from foldproof.errors import FoldproofError
from foldproof.hunting.corpus import Corpus, Outcome
from foldproof.hunting.fault import Fault
from foldproof.hunting.setup import Setup
from foldproof.hunting.worker import Batch, work
from foldproof.log import log_caught
from foldproof.processes import Died, Processes

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
    progress: Progress = lambda done, total, what: None,
) -> int:
    """Judge programs until one of the limits; return their number.

    What is in the corpus is not judged again, so that a second call goes on. A program whose process was killed is.

    Raises:
        FoldproofError: the corpus can't be written, or an extra is missing.
    """
    from foldproof.auditing.compilers import find_compiler
    from foldproof.hunting.generator import generate

    find_compiler(setup.compiler)
    generate(0, setup.training)
    deadline = math.inf if minutes is None else time.time() + 60 * minutes
    with Corpus(folder, create=True) as corpus, Processes(jobs) as processes:
        corpus.forget_begun(setup.key)
        numbers = _unused(corpus.numbers(setup.key))
        left = math.inf if programs is None else programs
        running: dict[Future[list[int]], list[int]] = {}
        done = 0
        while True:
            while len(running) < jobs and left > 0 and time.time() < deadline:
                taken = list(itertools.islice(numbers, int(min(SIZE, math.ceil(left / jobs), left))))
                running[_submit(processes, folder, setup, taken, deadline)] = taken
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
                    if not judged:
                        raise FoldproofError(f"judging program {taken[0]} failed before it began ({error})") from error
                rest = [number for number in taken if number not in judged]
                done += len(judged)
                if rest and time.time() < deadline:
                    running[_submit(processes, folder, setup, rest, deadline)] = rest
            progress(done, programs, f"hunting in {folder}, {len(corpus.clusters(setup.key))} clusters")


def _submit(processes: Processes, folder: Path, setup: Setup, numbers: list[int], deadline: float) -> Future[list[int]]:
    return processes.submit(work, Batch(folder, setup, numbers, deadline))


def _unused(used: set[int]) -> Iterator[int]:
    return (number for number in itertools.count() if number not in used)


def _record_death(corpus: Corpus, setup: Setup, taken: list[int], error: Died) -> list[int]:
    """Record the program that ended its process; return the programs of the batch that have an outcome."""
    begun = corpus.forget_begun(setup.key, taken)
    hung = error.code == -signal.SIGALRM
    name = "hang" if hung else str(error)
    for number in begun:
        corpus.end(setup.key, number, Outcome("hang" if hung else "killed", str(error), faults=[Fault("process", name)]))
    outcome = corpus.numbers(setup.key)
    return [number for number in taken if number in outcome]
