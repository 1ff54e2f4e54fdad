"""Benchmarks of this project itself, always beside something else timed in the same run.

Not here: the cost of a planned study (``studies.estimates``).
"""
