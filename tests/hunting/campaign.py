"""A hunt whose audits take a moment and find what a program's number says. ``python -m tests.hunting.campaign DIR N``

Workers import this module, too, so they judge in the same way.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from foldproof.hunting import Setup, confirm, hunt, worker
from foldproof.hunting.corpus import Outcome
from foldproof.hunting.fault import Fault
from foldproof.processes import ThisMachine

SETUP = Setup.of("export", {}, False)


def judge(setup: Setup, text: str) -> Outcome:
    number = int(text.partition("manual_seed(")[2].partition(")")[0])
    time.sleep(0.05)
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        time.sleep(60)
    faults = [Fault("pass", "fuse", "values", "aten.mm.default")] if number % 4 == 0 else []
    return Outcome(
        "refuted" if faults else "proved", "told", [("fuse", "PROVED", "")], {}, 0.0, faults, {"pass fuse": not faults}
    )


if __name__ in ("__main__", "__mp_main__"):  # and not where the tests import it
    worker.judge = judge
    worker.SECONDS = 3
    worker.SHRINKING = 0
    confirm.confirm = lambda script: confirm.CONFIRMED

if __name__ == "__main__":
    hunt(SETUP, Path(sys.argv[1]), programs=int(sys.argv[2]), jobs=2, executor=ThisMachine())
