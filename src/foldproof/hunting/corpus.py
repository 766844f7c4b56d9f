"""The corpus: one SQLite file with every program and its outcome, the clusters of faults, and the coverage.

SQLite's write-ahead log lets several processes write, and keeps what was committed when one of them is killed. Three
tables and a dozen queries need no library beyond Python's own `sqlite3`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldproof.auditing import Audit
from foldproof.errors import FoldproofError
from foldproof.hunting.fault import Fault

BEGUN = "begun"
"""Outcome of a program that is being judged, or whose process was killed."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS programs (
    setup TEXT NOT NULL, number INTEGER NOT NULL, outcome TEXT NOT NULL, text TEXT NOT NULL DEFAULT '',
    conclusion TEXT NOT NULL DEFAULT '', steps TEXT NOT NULL DEFAULT '[]', versions TEXT NOT NULL DEFAULT '{}',
    seconds REAL NOT NULL DEFAULT 0, parent INTEGER, new INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (setup, number));
CREATE TABLE IF NOT EXISTS clusters (
    id INTEGER PRIMARY KEY, setup TEXT NOT NULL, key TEXT NOT NULL, stage TEXT NOT NULL, title TEXT NOT NULL,
    programs INTEGER NOT NULL DEFAULT 0, number INTEGER, text TEXT NOT NULL DEFAULT '',
    known TEXT NOT NULL DEFAULT '', confirmed TEXT NOT NULL DEFAULT '', UNIQUE (setup, key));
CREATE TABLE IF NOT EXISTS members (cluster INTEGER NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (cluster, number));
CREATE TABLE IF NOT EXISTS coverage (
    setup TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, times INTEGER NOT NULL, proved INTEGER NOT NULL,
    PRIMARY KEY (setup, name));
"""


@dataclass(frozen=True)
class Outcome:
    """The result of one program.

    Attributes:
        outcome: the worst verdict; or ``crash``, ``killed``, ``hang``, ``memory`` where there is none; ``unsuitable``
            for a program that the compiler refuses; ``error`` for an exception in foldproof.
        faults: the faults that it shows.
        coverage: names of what the compiler did, and whether it is proved.
        audit: the audit itself, if there is one; it is not kept.
    """

    outcome: str
    conclusion: str = ""
    steps: Sequence[Sequence[str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    faults: Sequence[Fault] = ()
    coverage: Mapping[str, bool] = field(default_factory=dict)
    audit: Audit | None = None


@dataclass(frozen=True)
class Cluster:
    """Programs with one fault; ``text`` is the smallest one, with ``number``."""

    id: int
    setup: str
    key: str
    stage: str
    title: str
    programs: int
    number: int
    text: str
    known: str
    confirmed: str


class Corpus:
    """A folder with the file ``corpus.sqlite``, and a folder ``faults/N`` for each cluster.

    Raises:
        FoldproofError: the folder can't be written, or the file is none of a corpus, also where that shows later, in a
            ``with`` statement.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = folder
        self._place = place = folder / "corpus.sqlite"
        if not create and not place.is_file():
            raise FoldproofError(f"{folder} has no corpus.sqlite; foldproof hunt --corpus {folder} makes it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(place, timeout=60, isolation_level=None)
            self._base.row_factory = sqlite3.Row
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._base.close()
        if isinstance(error, sqlite3.Error):  # a damaged file shows where it is read, and a full disk at a write
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> FoldproofError:
        return FoldproofError(f"{self._place} can't be used as a corpus ({error}); give another folder")

    def begin(self, setup: str, number: int, text: str, parent: int | None = None) -> None:
        """Record that a program is being judged."""
        self._base.execute(
            "INSERT OR REPLACE INTO programs (setup, number, outcome, text, parent) VALUES (?, ?, ?, ?, ?)",
            (setup, number, BEGUN, text, parent),
        )

    def end(self, setup: str, number: int, found: Outcome) -> list[tuple[int, Fault]]:
        """Record a program's outcome in one transaction.

        Returns:
            The clusters of which it is the first or the smallest program.
        """
        self._base.execute("BEGIN IMMEDIATE")
        with self._base:
            new = sum(self._cover(setup, number, name, ok) for name, ok in found.coverage.items())
            self._base.execute(
                "UPDATE programs SET outcome = ?, conclusion = ?, steps = ?, versions = ?, seconds = ?, new = ?"
                " WHERE setup = ? AND number = ?",
                (
                    *(found.outcome, found.conclusion, json.dumps(found.steps), json.dumps(dict(found.versions))),
                    *(found.seconds, new, setup, number),
                ),
            )
            text = self._base.execute(
                "SELECT text FROM programs WHERE setup = ? AND number = ?", (setup, number)
            ).fetchone()
            added = [
                (self._add(setup, number, fault, text["text"] if text else ""), fault)
                for fault in dict.fromkeys(found.faults)
            ]
        return [(cluster, fault) for cluster, fault in added if cluster]

    def _cover(self, setup: str, number: int, name: str, ok: bool) -> bool:
        done = self._base.execute(
            "UPDATE coverage SET times = times + 1, proved = proved + ? WHERE setup = ? AND name = ?", (ok, setup, name)
        )
        if done.rowcount:
            return False
        self._base.execute("INSERT INTO coverage VALUES (?, ?, ?, 1, ?)", (setup, name, number, ok))
        return True

    def _add(self, setup: str, number: int, fault: Fault, text: str) -> int:
        """Add a program to the cluster of its fault; return the cluster's id if it is now the cluster's program."""
        self._base.execute(
            "INSERT OR IGNORE INTO clusters (setup, key, stage, title) VALUES (?, ?, ?, ?)",
            (setup, fault.key, fault.stage, str(fault)),
        )
        row = self._base.execute("SELECT * FROM clusters WHERE setup = ? AND key = ?", (setup, fault.key)).fetchone()
        self._base.execute("INSERT OR IGNORE INTO members VALUES (?, ?)", (row["id"], number))
        smaller = row["number"] is None or len(text) < len(row["text"])
        self._base.execute(
            "UPDATE clusters SET programs = (SELECT count(*) FROM members WHERE cluster = id) WHERE id = ?",
            (row["id"],),
        )
        if smaller:
            self._base.execute("UPDATE clusters SET number = ?, text = ? WHERE id = ?", (number, text, row["id"]))
        return row["id"] if smaller else 0

    def note(self, cluster: int, **values: str) -> None:
        """Set columns of a cluster: ``known``, ``confirmed``, ``text``."""
        for name, value in values.items():
            assert name in ("known", "confirmed", "text")
            self._base.execute(f"UPDATE clusters SET {name} = ? WHERE id = ?", (value, cluster))

    def list_begun(self, setup: str) -> list[int]:
        """Return the programs that were begun and have no outcome."""
        rows = self._base.execute("SELECT number FROM programs WHERE setup = ? AND outcome = ?", (setup, BEGUN))
        return [row["number"] for row in rows]

    def forget_begun(self, setup: str) -> None:
        """Forget the programs that have no outcome, so that they are judged again."""
        self._base.execute("DELETE FROM programs WHERE setup = ? AND outcome = ?", (setup, BEGUN))

    def numbers(self, setup: str) -> set[int]:
        """Return the numbers of all programs of a setup."""
        return {row["number"] for row in self._base.execute("SELECT number FROM programs WHERE setup = ?", (setup,))}

    def program(self, setup: str, number: int) -> sqlite3.Row:
        """Return a program.

        Raises:
            FoldproofError: there is none.
        """
        row = self._base.execute("SELECT * FROM programs WHERE setup = ? AND number = ?", (setup, number)).fetchone()
        if row is None:
            raise FoldproofError(f"{self.folder} has no program {number} of {setup}")
        return row  # type: ignore[no-any-return]

    def setups(self) -> list[str]:
        return [row["setup"] for row in self._base.execute("SELECT DISTINCT setup FROM programs ORDER BY setup")]

    def outcomes(self, setup: str) -> Counter[str]:
        """Count the programs of a setup by outcome."""
        rows = self._base.execute("SELECT outcome, count(*) FROM programs WHERE setup = ? GROUP BY outcome", (setup,))
        return Counter({row[0]: row[1] for row in rows})

    def seconds(self, setup: str) -> float:
        """Return the time spent on the programs of a setup."""
        row = self._base.execute("SELECT total(seconds) FROM programs WHERE setup = ?", (setup,)).fetchone()
        return float(row[0])

    def clusters(self, setup: str) -> list[Cluster]:
        """Return the clusters of a setup, those of most programs first."""
        rows = self._base.execute("SELECT * FROM clusters WHERE setup = ? ORDER BY programs DESC, id", (setup,))
        return [Cluster(**dict(row)) for row in rows]

    def covered(self, setup: str) -> list[sqlite3.Row]:
        """Return each name of the coverage, with the number of programs, and of those in which it is proved."""
        return self._base.execute("SELECT * FROM coverage WHERE setup = ? ORDER BY name", (setup,)).fetchall()

    def place(self, cluster: int) -> Path:
        """Return the folder of a cluster's program and reproduction."""
        return self.folder / "faults" / str(cluster)
