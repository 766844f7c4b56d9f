"""The work and the output of `foldproof hunt`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from foldproof.cli.audits import read_options
from foldproof.cli.output import Output, check_folder
from foldproof.cli.progress import Bar
from foldproof.cli.summary import print_written
from foldproof.cli.text import console, say
from foldproof.errors import FoldproofError
from foldproof.executors import Executors, find_executor
from foldproof.verdict import Kind

STAGES = ("pass", "kernel", "numbers", "process", "crash")
"""Stages of faults that are the compiler's own; `report` explains the others."""


def hunt(
    compiler: str,
    options: Sequence[str],
    training: bool,
    limits: tuple[int | None, float | None],
    jobs: int,
    executor: Executors,
    corpus: Path,
) -> int:
    """Judge programs until a limit, and print the status; REFUTED if a fault of the compiler is in the corpus."""
    programs, minutes = limits
    check_folder(corpus)
    with Bar() as progress:
        from foldproof.hunting import Corpus, Setup
        from foldproof.hunting import hunt as run

        setup = Setup.of(compiler, read_options(options), training)
        run(
            setup,
            corpus,
            programs=programs,
            minutes=minutes,
            jobs=jobs,
            executor=find_executor(executor),
            progress=progress,
        )
    status(corpus)
    with Corpus(corpus) as kept:
        wrong = any(one.stage in STAGES for one in kept.clusters(setup.key))
    return (Kind.REFUTED if wrong else Kind.PROVED).exit_code


def status(corpus: Path) -> int:
    from foldproof.hunting import Corpus
    from foldproof.hunting.report import describe_status

    out = console()
    with Corpus(corpus) as kept:
        for line in describe_status(kept):
            say(out, line)
    return 0


def report(corpus: Path, output: Path) -> int:
    from foldproof.hunting import Corpus
    from foldproof.hunting.report import write_page

    out = Output(output)
    with Corpus(corpus) as kept:
        text = write_page(kept)
    out.write(partial(Path.write_text, data=text, encoding="utf-8"))
    print_written(console(), [output])
    return 0


def replay(corpus: Path, fault: int | None) -> int:
    """Run the program of a cluster, or of all, again with the compiler and without foldproof."""
    from foldproof.hunting import Corpus
    from foldproof.hunting.confirm import CONFIRMED, confirm
    from foldproof.hunting.report import sort_clusters

    out = console()
    wrong = False
    with Corpus(corpus) as kept:
        clusters = [one for key in kept.setups() for one in sort_clusters(kept.clusters(key))]
        chosen = [one for one in clusters if fault in (None, one.id)]
        if fault is not None and not chosen:
            raise FoldproofError(f"{corpus} has no fault {fault}; foldproof hunt status --corpus {corpus} lists them")
        for one in chosen:
            script = kept.place(one.id) / "confirm.py"
            told = confirm(script) if script.is_file() else "no program is kept, as it ended its process"
            wrong = wrong or told == CONFIRMED
            say(out, f"fault {one.id}, {one.title}: {'still wrong' if told == CONFIRMED else told}")
    return (Kind.REFUTED if wrong else Kind.PROVED).exit_code
