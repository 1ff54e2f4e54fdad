"""Compares deletion-based image augmentations fairly, and the sparse attacks behind them."""

__version__ = "0.1.0"
