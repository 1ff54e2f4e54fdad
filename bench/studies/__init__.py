"""Many jobs as one study: run, continued, compared; their estimated cost and their status.

Not here: how one job runs (``training``, ``robustness``).
"""
