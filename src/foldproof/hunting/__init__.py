"""Hunting: random programs, each compiled and audited, until a compiler gives a wrong answer.

The parts, from the bottom: a `program` is data with a text; `idioms` are what programs are made of; a `scene` fills
them, and the `generator` draws them; a `fault` is what an audit finds wrong, with a key that is the same for all
programs which show it; `coverage` names what the compiler did; the `corpus` keeps all of it; a `worker` judges
programs in a process of its own, and a `campaign` keeps workers busy. `confirm` checks a fault without foldproof.
"""

from foldproof.hunting.campaign import hunt
from foldproof.hunting.corpus import Corpus
from foldproof.hunting.setup import Setup

__all__ = ["Corpus", "Setup", "hunt"]
