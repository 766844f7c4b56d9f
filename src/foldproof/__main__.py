"""``python -m foldproof``."""

from __future__ import annotations

import sys

from foldproof.cli import main

if __name__ == "__main__":
    sys.exit(main())
