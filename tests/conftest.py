"""Settings shared by all tests."""

from __future__ import annotations

import torch

# One thread: the same sums in the same order, and workers that run side by side do not disturb each other.
torch.set_num_threads(1)
