"""Training one network: the recipe, the loop, checkpoints, and the victims that attacks need.

Not here: many jobs at once and their comparison (``studies``).
"""
