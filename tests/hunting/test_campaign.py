"""Hunts: each program is judged once, whatever ends a process, and a fault is one cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foldproof.cli import main
from foldproof.hunting import Setup, confirm
from foldproof.hunting.corpus import BEGUN, Corpus, Outcome
from foldproof.hunting.fault import Fault
from foldproof.hunting.known import find_known
from foldproof.hunting.report import describe_status, write_page
from tests.hunting.campaign import SETUP


def start(folder: Path, programs: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hunting.campaign", str(folder), str(programs)], env=environment
    )


def read(folder: Path) -> dict[int, str]:
    """Read the outcomes; none while the tables are made."""
    with sqlite3.connect(folder / "corpus.sqlite") as base, contextlib.suppress(sqlite3.OperationalError):
        return dict(base.execute("SELECT number, outcome FROM programs"))
    return {}


def test_a_hunt_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    first = start(tmp_path, 1000)
    while not (tmp_path / "corpus.sqlite").is_file() or len(read(tmp_path)) < 8:
        assert first.poll() is None
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(1)  # workers end after the program at hand
    before = {number: outcome for number, outcome in read(tmp_path).items() if outcome != BEGUN}
    assert len(before) >= 6
    assert start(tmp_path, 27).wait() == 0
    after = read(tmp_path)
    assert before.items() <= after.items()
    ended_late = len(after) - len(before) - 27  # by the two workers, after the outcomes were read
    assert 0 <= ended_late <= 2 and BEGUN not in after.values()
    assert (after[3], after[5]) == ("killed", "hang")
    with Corpus(tmp_path) as corpus:
        clusters = {one.stage: one for one in corpus.clusters(SETUP.key)}
        found = [one for one in corpus.clusters(SETUP.key) if one.stage == "pass"]
        assert len(found) == 1 and found[0].programs == sum(outcome == "refuted" for outcome in after.values())
        assert found[0].confirmed == "confirmed"
        texts = [corpus.program(SETUP.key, n)["text"] for n, outcome in after.items() if outcome == "refuted"]
        assert len(found[0].text) <= min(map(len, texts))
        assert "process" in clusters
        (covered,) = corpus.covered(SETUP.key)
        assert covered["times"] == len(after) - 2 and covered["proved"] == sum(o == "proved" for o in after.values())
        told = "\n".join(describe_status(corpus))
        assert f"{len(after)} programs" in told and "pass fuse: values at aten.mm.default" in told
        assert found[0].text.strip() in write_page(corpus)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus with two faults: the numbers of one are wrong, and those of the other are not."""
    with Corpus(tmp_path, create=True) as kept:
        for number, lines in enumerate((DOUBLED, "return (x,),")):
            text = PROGRAM.format(lines)
            kept.begin(INDUCTOR.key, number, text)
            fault = Fault("pass", f"pass{number}", "values")
            ((cluster, _),) = kept.end(INDUCTOR.key, number, Outcome("refuted", faults=[fault]))
            confirm.write(kept.place(cluster), INDUCTOR, text)
    return tmp_path


INDUCTOR = Setup.of("inductor", {}, False)
DOUBLED = "return (x * 2 if torch.compiler.is_compiling() else x,)"
PROGRAM = """
import torch
from torch import nn

class Program(nn.Module):
    def forward(self, x):
        {}

def make():
    return Program(), (torch.ones(3),)
"""


def test_replays_tell_wrong_programs_from_right_ones(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hunt", "replay", "--corpus", str(corpus)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["fault 1, pass pass0: values: still wrong", "fault 2, pass pass1: values: not confirmed"]
    assert "WRONG: output 0" in (corpus / "faults/1/confirm.txt").read_text()
    assert main(["hunt", "replay", "2", "--corpus", str(corpus)]) == 0
    assert main(["hunt", "replay", "3", "--corpus", str(corpus)]) == 2


@pytest.mark.swallows("a file that is no database, which Python's sqlite3 says in a frame of ours")
def test_errors_are_for_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hunt", "status", "--corpus", str(tmp_path)]) == 2
    assert "has no corpus.sqlite" in capsys.readouterr().err
    assert main(["hunt", "--compiler", "gcc", "--corpus", str(tmp_path)]) == 2
    assert "compiler must be one of" in capsys.readouterr().err
    assert main(["hunt", "--compiler", "fx"]) == 2
    assert "--corpus" in capsys.readouterr().err
    (tmp_path / "corpus.sqlite").write_text("no database, but a text that is long enough to be read as one" * 30)
    assert main(["hunt", "status", "--corpus", str(tmp_path)]) == 2
    assert "can't be used as a corpus" in capsys.readouterr().err


@pytest.mark.swallows("a query that a file of other tables has no columns for")
def test_a_corpus_of_other_tables_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "corpus.sqlite")) as base:
        base.execute("CREATE TABLE programs (number INTEGER)")
    assert main(["hunt", "status", "--corpus", str(tmp_path)]) == 2
    assert "can't be used as a corpus" in capsys.readouterr().err


def test_published_faults_are_known_by_pass_or_memory() -> None:
    assert find_known(INDUCTOR, Fault("pass", "post_grad.addmm", "values")) == "inductor_add_alpha"
    assert "inductor_cumsum_expanded" in find_known(INDUCTOR, Fault("numbers", "", "memory"))
    assert find_known(INDUCTOR, Fault("pass", "remove_no_ops", "values")) == ""
    assert find_known(SETUP, Fault("pass", "post_grad.addmm", "values")) == ""
