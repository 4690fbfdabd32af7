"""Thousands of images through a paid generation API: nothing lost, nothing paid for twice."""

__version__ = "0.1.0"
