"""The packages of the ports, and what else their imports ask for."""

from __future__ import annotations

from pathlib import Path

from zoo.packages import importable

PACKAGES = ("torchtune==0.6.1", "timm==1.0.31", "torchvision==0.28.0", "open_clip_torch==3.3.0", "ftfy==6.3.1")
"""Arguments of ``pip install --no-deps --target FOLDER``."""
ABSENT = ("PIL", "antlr4", "blobfile", "datasets", "kagglehub", "omegaconf", "sentencepiece", "tiktoken", "torchdata")
"""Packages that imports ask for, and models do not use."""
_MOVED = ("torchao",)
"""Packages whose modules torchtune asks for under older names; what they have is found first."""


def installed(folder: Path) -> None:
    """Let Python import the packages in ``folder``, after those of the environment."""
    importable(folder, (*ABSENT, *_MOVED))
