"""Broken variants of every rule, by family."""
