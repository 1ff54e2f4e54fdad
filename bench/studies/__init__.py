"""Many jobs as one study: run, resumed, compared; what they will cost and what is under way.

Not here: how one job runs (``training``, ``robustness``).
"""
