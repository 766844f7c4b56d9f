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

from foldproof.hunting.corpus import BEGUN, Corpus
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
    assert start(tmp_path, 12).wait() == 0
    after = read(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 12 and BEGUN not in after.values()
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
