"""Ports that other people wrote: two implementations of one model, in small configurations, and a conversion.

Their packages are not needed for anything else here, and some of them ask for others that no model needs. So they are
installed without dependencies into a folder of their own, which `installed` makes importable.
"""

from zoo.ports.algorithms import ALGORITHMS
from zoo.ports.packages import PACKAGES, installed
from zoo.ports.port import Pair, Port
from zoo.ports.text import TEXT
from zoo.ports.torchtune import TORCHTUNE
from zoo.ports.vision import VISION

PORTS: tuple[Port, ...] = (*TORCHTUNE, *TEXT, *VISION, *ALGORITHMS)

__all__ = ["PACKAGES", "PORTS", "Pair", "Port", "installed"]
