"""Small models of many architectures, with random weights and no downloads: what foldproof is tried on.

Development code: tests, generated documents and benchmarks use it; the wheel does not carry it.
"""

from zoo.architecture import Architecture, Family, Sample
from zoo.table import ZOO

__all__ = ["ZOO", "Architecture", "Family", "Sample"]
