"""Sparse adversarial attacks: each turns images into images that reach a goal with few changes."""

from attacks.base import Attack, Goal

BUILTIN: dict[str, type[Attack]] = {}
"""Command-line name → class; every class has defaults that make a usable object."""

__all__ = ["BUILTIN", "Attack", "Goal"]
