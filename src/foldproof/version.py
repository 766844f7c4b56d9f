"""The version, which packaging reads here, too."""

__version__ = "0.1.0"
