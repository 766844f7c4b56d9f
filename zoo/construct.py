"""Construction of models: `transformers` classes by name with a small configuration, and their inputs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo.architecture import Inputs

VOCABULARY = 99
"""Size of the vocabulary of text models."""

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
"""Size of a transformer encoder, under the names of most configurations."""


def library() -> Any:
    """Import `transformers` on first use (it takes seconds), quiet and without the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers: Any = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    return transformers


def transformer(path: str, **config: Any) -> Callable[[], nn.Module]:
    """Make a model class of `transformers` with its own kind of configuration.

    ``path`` is the name of a public class, or a dotted path below ``transformers.models``.
    """

    def make() -> nn.Module:
        module, _, name = path.rpartition(".")
        home = importlib.import_module(f"{library().models.__name__}.{module}") if module else library()
        cls = getattr(home, name)
        return construct(cls, cls.config_class(**config))

    return make


def construct(cls: Any, config: Any) -> nn.Module:
    """``cls(config)`` without a cache of keys and values, which is not part of the function."""
    if hasattr(config, "use_cache"):
        config.use_cache = False
    model: nn.Module = cls(config)
    return model


def normal(*shape: int) -> Callable[[], Inputs]:
    """One tensor of standard normal numbers."""
    return lambda: (torch.randn(*shape),)


def image(size: int = 64, channels: int = 3) -> Callable[[], Inputs]:
    """A batch of two square images."""
    return normal(2, channels, size, size)


def tokens(length: int = 12) -> Callable[[], Inputs]:
    """A batch of two sequences from a vocabulary of `VOCABULARY` tokens, without the special ones."""
    return lambda: (torch.randint(4, VOCABULARY - 4, (2, length)),)
