"""Training: two implementations of a training step are compared as programs."""

from foldproof.training.api import TrainingStep, prove_step

__all__ = ["TrainingStep", "prove_step"]
