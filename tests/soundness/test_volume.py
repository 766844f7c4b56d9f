"""A sample of the random pairs that docs/volume.md judges by the thousand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from docs.make_volume import PAGE, Run, page
from zoo.volume.judge import ERRORS, GROUPS, MAX_EQUAL, Group, Judged, judge
from zoo.volume.pairs import Pair, distance, make_pair, operators

SEEDS = range(5000, 5001)


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    found = [judge(group, seed) for group in GROUPS for seed in SEEDS]
    return [one for one in found if one is not None]


def test_no_verdict_is_wrong(judged: list[Judged]) -> None:
    assert len(judged) >= 10
    assert [one for one in judged if one.error is not None] == []


def test_most_pairs_are_decided(judged: list[Judged]) -> None:
    """Verdicts that are all UNDECIDED would be right, too."""
    refuted = [one.kind.value == "REFUTED" for one in judged if one.group.changed]
    proved = [one.kind.value == "PROVED" for one in judged if not one.group.changed]
    assert sum(refuted) > 0.8 * len(refuted) and sum(proved) > 0.3 * len(proved)


def test_pairs_are_the_same_for_the_same_seed() -> None:
    one, other = (make_pair(3, torch.float32, True, True) for _ in range(2))
    assert one.names == other.names and distance(one) == distance(other)


def test_the_truth_tells_equal_from_changed() -> None:
    apart = {
        which: [distance(make_pair(s, torch.float32, which, False)).ordinary for s in range(8)] for which in (0, 1)
    }
    assert max(apart[0]) < MAX_EQUAL and min(apart[1]) > MAX_EQUAL


def _pair(group: Group, seed: int) -> Pair:
    return make_pair(seed, group.dtype, group.changed, group.stateful)


def test_the_page_counts_operators_that_programs_call() -> None:
    """The number in the title is that of the names below it, and the first pairs of the run call sixty of them."""
    text = Path(PAGE).read_text(encoding="utf-8")
    title = re.search(r"^## The (\d+) operators$", text, re.MULTILINE)
    assert title is not None
    listed = re.findall(r"`(\w+)` \d+", text[title.end() : text.index("## How this was made")])
    assert len(listed) == len(set(listed)) == int(title[1]) >= 60
    called = {name for group in GROUPS for seed in range(12) for name in operators(_pair(group, seed))}
    assert len(called) >= 60 and called <= set(listed)
    rows = re.findall(r"^\| \w+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) == 3 and all(row[2:] == ("0",) * len(ERRORS) for row in rows)
    assert sum(int(row[0]) for row in rows) >= 1000 and sum(int(row[1]) for row in rows) >= 1000


def test_errors_are_told(judged: list[Judged]) -> None:
    spoilt = replace(judged[0], error=ERRORS[0])
    text = page([spoilt, *judged[1:]], Run("command", "commit"))
    assert f"- {ERRORS[0]}: {spoilt.group}, seed {spoilt.seed}" in text
