"""Small models of many architectures, with random weights and no downloads, for trials of foldproof.

Development code for tests, generated pages and benchmarks; not part of the wheel.
"""

from zoo.architecture import Architecture, Family, Sample
from zoo.table import ZOO

__all__ = ["ZOO", "Architecture", "Family", "Sample"]
